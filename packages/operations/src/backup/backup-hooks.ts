/**
 * Programs of the operator's around a backup, such as to pause a batch job or to tell another system.
 *
 * They run on the worker's host as the worker's user, without a shell, with an environment of their own: a fixed PATH and the
 * TIDEMARK_ variables that docs/configuration.md lists, nothing of the worker's, so no secret. A program that
 * takes too long is killed with its process group. What it prints goes to the log, bounded.
 */
import { spawn } from 'node:child_process'
import { type Clock, type Logger, OperationalError, abortError } from '@tidemark/kernel'
import { HookFailedError } from '../errors.ts'

export interface Hook {
  /** Absolute path. */
  readonly command: string
  readonly args: readonly string[]
  readonly timeoutMs: number
}

export interface BackupHooks {
  readonly before?: Hook
  readonly after?: Hook
}

export type HookOutcome = 'intact' | 'damaged' | 'failed'

interface HookDeps {
  readonly clock: Clock
  readonly logger: Logger
  readonly signal: AbortSignal
}

const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
const MAX_OUTPUT_BYTES = 8_192
/** A worker that is being stopped has little time left. */
const HURRIED_MS = 5_000
const TERM_GRACE_MS = 2_000
const DRAIN_MS = 500

/**
 * Runs `work` between the hooks. `work` is handed a function that takes the backup's id as soon as there is one.
 *
 * @throws {HookFailedError} the hook before it failed, and `work` was not begun. One that fails after it is logged, and undoes nothing.
 */
export async function withHooks<T extends { readonly record: { readonly verdict: 'intact' | 'damaged' } }>(
  hooks: BackupHooks | undefined,
  facts: { readonly cluster: string; readonly operationId: string },
  deps: HookDeps,
  work: (onBackupId: (backupId: string) => void) => Promise<T>,
): Promise<T> {
  const environment: Record<string, string> = {
    PATH,
    LANG: 'C.UTF-8',
    TIDEMARK_CLUSTER: facts.cluster,
    TIDEMARK_OPERATION_ID: facts.operationId,
  }
  if (hooks?.before !== undefined) {
    const problem = await run('before', hooks.before, environment, hooks.before.timeoutMs, deps, deps.signal)
    if (deps.signal.aborted) throw abortError(deps.signal, 'the hook before the backup')
    if (problem !== undefined) throw new HookFailedError(hooks.before.command, problem)
  }
  let outcome: HookOutcome = 'failed'
  let code: string | undefined
  let backupId: string | undefined
  try {
    const result = await work((id) => (backupId = id))
    outcome = result.record.verdict
    return result
  } catch (error) {
    code = error instanceof OperationalError ? error.code : 'INTERNAL'
    throw error
  } finally {
    if (hooks?.after !== undefined) {
      const { timeoutMs } = hooks.after
      const told = {
        ...environment,
        TIDEMARK_OUTCOME: outcome,
        ...(backupId === undefined ? {} : { TIDEMARK_BACKUP_ID: backupId }),
        ...(code === undefined ? {} : { TIDEMARK_ERROR_CODE: code }),
      }
      const limitMs = deps.signal.aborted ? Math.min(timeoutMs, HURRIED_MS) : timeoutMs
      // It runs after an abort too: what the hook before it did is waiting to be undone.
      const problem = await run('after', hooks.after, told, limitMs, deps, new AbortController().signal)
      if (problem !== undefined) {
        deps.logger.error({ event: 'hook-failed', hook: 'after', command: hooks.after.command, problem }, 'hook failed')
      }
    }
  }
}

/** @returns what went wrong. */
async function run(
  which: 'before' | 'after',
  { command, args }: Hook,
  environment: Record<string, string>,
  timeoutMs: number,
  { clock, logger }: HookDeps,
  signal: AbortSignal,
): Promise<string | undefined> {
  const startedMs = clock.monotonicMs()
  // Detached: a process group of its own, which can be killed as one.
  const child = spawn(command, [...args], {
    cwd: '/',
    env: { ...environment, TIDEMARK_HOOK: which },
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const output: Buffer[] = []
  let outputBytes = 0
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => {
      if (outputBytes < MAX_OUTPUT_BYTES) output.push(chunk.subarray(0, MAX_OUTPUT_BYTES - outputBytes))
      outputBytes += chunk.length
    })
  }
  const ended = new Promise<string | undefined>((resolve) => {
    child.once('error', (error: NodeJS.ErrnoException) => resolve(`it cannot be run (${error.code ?? error.message})`))
    // Not 'close': a process that it left behind may hold the pipes for ever.
    child.once('exit', (code, by) => {
      resolve(code === 0 ? undefined : by === null ? `exit code ${code}` : `ended by ${by}`)
    })
  })
  const drained = new Promise<void>((resolve) => void child.once('close', () => resolve()))
  const over = new AbortController()
  const stop = AbortSignal.any([signal, over.signal])
  const late = clock.sleep(timeoutMs, stop).then(
    () => `it took longer than ${timeoutMs} ms`,
    () => (signal.aborted ? 'it was stopped with the backup' : undefined),
  )
  let problem = await Promise.race([ended, late])
  if (child.exitCode === null && child.signalCode === null && child.pid !== undefined) {
    signalGroup(child.pid, 'SIGTERM')
    await Promise.race([ended, clock.sleep(TERM_GRACE_MS, over.signal).catch(() => {})])
    // The leader may have gone and left others of its group.
    signalGroup(child.pid, 'SIGKILL')
    await ended
    problem ??= 'it was stopped'
  }
  // What it printed last may still be in the pipe.
  await Promise.race([drained, clock.sleep(DRAIN_MS, over.signal).catch(() => {})])
  over.abort()
  child.stdout.destroy()
  child.stderr.destroy()
  const facts = {
    hook: which,
    command,
    durationMs: Math.round(clock.monotonicMs() - startedMs),
    output: Buffer.concat(output).toString('utf8'),
    ...(outputBytes > MAX_OUTPUT_BYTES ? { outputBytes } : {}),
  }
  if (problem === undefined) logger.info(facts, 'hook ended')
  else logger.warn({ ...facts, problem }, 'hook ended badly')
  return problem
}

function signalGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal)
  } catch {
    // nobody of it is left
  }
}
