/** The ways to have an operation carried out: each ends as an outcome, whatever happens to whoever carries it out. */
import { buildServer } from '@tidemark/api/server'
import type { BackupResult, CopyResult, Operation, RestoreResult } from '@tidemark/contracts'
import { isTerminal } from '@tidemark/contracts'
import { type Problem, silentLogger } from '@tidemark/kernel'
import type { TargetMode } from '@tidemark/operations'
import { OperationQueue, RETRY_POLICIES, connectRedis } from '@tidemark/queue'
import { until } from '@tidemark/testkit'
import type { Fleet } from '../support/fleet.ts'
import { type Outcome, newBackupOperationId } from '../support/operate.ts'
import type { ProcessOrder } from '../support/operation-process.ts'
import { Program } from '../support/processes.ts'

export type Engine = 'cli' | 'process' | 'fleet'
export type Task =
  | { readonly do: 'backup' }
  | { readonly do: 'restore'; readonly backup: string; readonly target: string; readonly mode?: TargetMode }
  /** Of all that `to` lacks, without a key. */
  | { readonly do: 'copy'; readonly to: string }
export type AnyOutcome = Outcome<BackupResult | RestoreResult | CopyResult>

export interface Run extends AsyncDisposable {
  readonly outcome: Promise<AnyOutcome>
  /** Of the processes that carry it out. */
  readonly pids: () => readonly number[]
  /** SIGKILL for whoever carries it out. @param whenDead is run before anybody takes up what he left. */
  kill(whenDead?: () => Promise<void>): Promise<void>
  /** SIGTERM. */
  terminate(): void
  /** What the processes said, for the evidence. */
  readonly said: () => string
}

export interface RunOptions {
  readonly clock?: Pick<ProcessOrder, 'clockOffsetMs' | 'clockWrongFromBytes'>
  /** So many processes carry out the same operation at once. `process` only; the first one's outcome counts, but for a refusal. */
  readonly twins?: number
}

export async function beginRun(engine: Engine, fleet: Fleet, task: Task, options: RunOptions = {}): Promise<Run> {
  switch (engine) {
    case 'cli':
      return runCli(fleet, task)
    case 'process':
      return runProcess(fleet, task, options)
    case 'fleet':
      return await runFleet(fleet, task)
    default:
      return engine satisfies never
  }
}

/** Copies have none. */
function envOf(fleet: Fleet, task: Task): Record<string, string> {
  return task.do === 'copy' ? { ...fleet.env, BACKUP_ENCRYPTION_KEY: '' } : fleet.env
}

function wordsOf(task: Task): readonly string[] {
  switch (task.do) {
    case 'backup':
      return ['backup', 'base', 'main', '--local']
    case 'restore': {
      const mode = task.mode === undefined || task.mode === 'new' ? [] : [`--${task.mode}`]
      return ['restore', 'run', task.backup, '--cluster', 'main', '--target', task.target, '--local', ...mode]
    }
    case 'copy':
      return ['copy', '--to', task.to, '--missing', '--cluster', 'main', '--local']
    default:
      return task satisfies never
  }
}

function runCli(fleet: Fleet, task: Task): Run {
  const program = fleet.beginCli(['--json', ...wordsOf(task)], { env: envOf(fleet, task) })
  const outcome = program.ended.then(({ code, signal }): AnyOutcome => {
    // SIGTERM ends a program that has not come to hear it yet.
    if (signal !== null) return { kind: 'killed' }
    if (code === 0) return { kind: 'succeeded', result: JSON.parse(program.stdout) as CopyResult }
    return { kind: 'failed', problem: problemIn(program.stderr, code) }
  })
  return runOf([program], outcome)
}

function problemIn(stderr: string, code: number | null): Problem {
  const line = stderr.split('\n').findLast((text) => text.startsWith('{"error"'))
  if (line !== undefined) return (JSON.parse(line) as { error: Problem }).error
  return { code: 'INTERNAL', message: `exit code ${code}: ${stderr}`, hint: '', retry: 'never', facts: {} }
}

function runProcess(fleet: Fleet, task: Task, { clock = {}, twins = 1 }: RunOptions): Run {
  const order: ProcessOrder = {
    ...clock,
    ...(task.do === 'backup'
      ? { ...task, operationId: newBackupOperationId(), requestedAt: new Date().toISOString() }
      : task),
  }
  const script = 'tests/support/operation-process.ts'
  const programs = Array.from(
    { length: twins },
    () => new Program(script, [JSON.stringify(order)], { env: envOf(fleet, task), cwd: fleet.folder.path }),
  )
  const outcomes = programs.map((program) =>
    program.ended.then(({ code, signal }): AnyOutcome => {
      if (signal === 'SIGKILL') return { kind: 'killed' }
      if (code === 0) return JSON.parse(program.stdout) as AnyOutcome
      return { kind: 'failed', problem: problemIn(program.stderr, code) }
    }),
  )
  return runOf(programs, Promise.all(outcomes).then(oneOf))
}

/** Twins: those that did it must name one backup; others may only have been refused. */
function oneOf(outcomes: readonly AnyOutcome[]): AnyOutcome {
  const done = outcomes.filter((outcome) => outcome.kind === 'succeeded')
  const nameless = outcomes.find((outcome) => outcome.kind === 'failed' && outcome.problem.code === 'INTERNAL')
  if (nameless !== undefined) return nameless
  const ids = new Set(done.flatMap(({ result }) => ('backupId' in result ? [result.backupId] : [])))
  if (ids.size > 1) throw new Error(`one operation, several backups: ${[...ids].join(', ')}`)
  return done[0] ?? outcomes[0] ?? { kind: 'killed' }
}

function runOf(programs: readonly Program[], outcome: Promise<AnyOutcome>): Run {
  outcome.catch(() => {})
  return {
    outcome,
    pids: () => programs.map(({ pid }) => pid),
    kill: async (whenDead) => {
      await Promise.all(programs.map((program) => program.end('SIGKILL')))
      await whenDead?.()
    },
    terminate: () => programs.forEach((program) => program.signal('SIGTERM')),
    said: () => programs.map(({ stderr, stdout }) => `${stderr}${stdout}`).join('\n--\n'),
    [Symbol.asyncDispose]: async () => {
      await Promise.all(programs.map((program) => program[Symbol.asyncDispose]()))
    },
  }
}

/** API, queue and two worker processes one after the other: when the first is killed, the second takes up what it left. */
async function runFleet(fleet: Fleet, task: Task): Promise<Run> {
  await using stack = new AsyncDisposableStack()
  const { config } = fleet
  const connection = stack.use(connectRedis(config.redis, 'producer'))
  const quick = { ...RETRY_POLICIES.backup, backoffMs: 200, attempts: 3 }
  const queue = stack.use(
    new OperationQueue({
      connection,
      retryPolicies: { ...RETRY_POLICIES, backup: quick, verify: quick, maintenance: quick },
    }),
  )
  const app = await buildServer({ config, queue, checkReady: () => connection.checkReady(), logger: silentLogger })
  stack.defer(() => app.close())
  await app.listen({ host: '127.0.0.1', port: fleet.apiPort })
  const programs: Program[] = []
  stack.defer(async () => void (await Promise.all(programs.map((program) => program[Symbol.asyncDispose]()))))
  const startWorker = async (): Promise<void> => {
    const worker = new Program('tests/support/quick-worker.ts', [], { env: envOf(fleet, task), cwd: fleet.folder.path })
    programs.push(worker)
    await worker.readyLine()
  }
  await until(() => connection.client.status === 'ready', { what: 'Redis' })
  await startWorker()
  const id = await ask(fleet, task)
  const over = new AbortController()
  stack.defer(() => over.abort())
  const outcome = follow(fleet, id, over.signal)
  outcome.catch(() => {})
  const kept = stack.move()
  return {
    outcome,
    pids: () => programs.slice(-1).map(({ pid }) => pid),
    kill: async (whenDead) => {
      await programs.at(-1)?.end('SIGKILL')
      await whenDead?.()
      await startWorker()
    },
    terminate: () => programs.at(-1)?.signal('SIGTERM'),
    said: () => programs.map(({ stderr }) => stderr).join('\n--\n'),
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}

function ask(fleet: Fleet, task: Task): Promise<string> {
  switch (task.do) {
    case 'backup':
      return fleet.post('/v1/clusters/main/backups', { verifyAfter: false })
    case 'restore': {
      const { backup, target, mode = 'new' } = task
      return fleet.post('/v1/restores', { cluster: 'main', backupId: backup, targetDirectory: target, mode })
    }
    case 'copy':
      return fleet.post('/v1/maintenance', {
        cluster: 'main',
        task: { verb: 'copy', to: task.to, backupId: 'missing' },
      })
    default:
      return task satisfies never
  }
}

/** An operation that Redis has forgotten is one that can say nothing: 'killed'. */
async function follow(fleet: Fleet, id: string, signal: AbortSignal): Promise<AnyOutcome> {
  return await until(
    async (): Promise<AnyOutcome | undefined> => {
      if (signal.aborted) return { kind: 'killed' }
      const response = await fetch(`http://127.0.0.1:${fleet.apiPort}/v1/operations/${id}`)
      if (response.status === 404) return { kind: 'killed' }
      if (!response.ok) return undefined
      const operation = (await response.json()) as Operation
      if (!isTerminal(operation.state)) return undefined
      const result = resultOf(operation)
      if (operation.state === 'succeeded' && result !== undefined) return { kind: 'succeeded', result }
      // What its worker left when it died is there still.
      if (operation.error?.code === 'WORKER_LOST') return { kind: 'killed' }
      return { kind: 'failed', problem: operation.error ?? problemIn('', null) }
    },
    { timeoutMs: 90_000, everyMs: 50, what: `the end of ${id}` },
  )
}

function resultOf(operation: Operation): BackupResult | RestoreResult | CopyResult | undefined {
  if (operation.kind === 'backup' || operation.kind === 'restore') return operation.result
  return operation.kind === 'maintenance' && operation.result?.verb === 'copy' ? operation.result : undefined
}
