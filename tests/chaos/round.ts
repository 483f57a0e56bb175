/** One round: an operation under a fault, then the promises that hold after any fault. What each operation promises is in `play-*.ts`. */
import { cp, mkdir, writeFile } from 'node:fs/promises'
import type { Problem } from '@tidemark/kernel'
import { type Random } from '@tidemark/testkit'
import { type Scene, Violation, demand } from '../support/aftermath.ts'
import { Fleet, type RepositoryChoice, awsEnvironment, untilLetGo } from '../support/fleet.ts'
import { initHere } from '../support/operate.ts'
import type { ChaosBench } from './bench.ts'
import { type AnyOutcome, type Engine, type Run, type Task, beginRun } from './engines.ts'
import { type Operation, mountSmallDisk } from './faults.ts'
import type { Landing, LandingProbe } from './landing.ts'
import type { Place } from './library.ts'
import { type Choice, type RoundPlan, againAs, planRound } from './plan.ts'
import { playBackup } from './play-backup.ts'
import { COPY_TARGET, playCopy } from './play-copy.ts'
import { playRestore } from './play-restore.ts'
import { playResume } from './play-resume.ts'

const MiB = 1_048_576
const KILL = 'kill -9'
const TERMINATE = 'SIGTERM'

export interface RoundReport {
  readonly seed: number
  readonly engine: Engine
  readonly operation: Operation
  readonly fault: string
  readonly storage: string
  readonly load: boolean
  readonly notes: readonly string[]
  /** Of each time that the operation ran under the fault. */
  readonly outcomes: readonly AnyOutcome['kind'][]
  /** Of the last failure. */
  readonly code?: string
  /** Of each kill; one that found nobody to kill came after. */
  readonly landings: readonly Landing[]
  readonly verified: number
  readonly restored: number
  /** Objects of dead attempts that sweeps took away. */
  readonly swept: number
  readonly ms: number
  readonly violation?: string
  readonly evidence?: string
  /** How to play it again. */
  readonly again: string
}

/** For proof that a campaign can fail: what is done to what the operation wrote, between the fault and the checks. */
export type Sabotage = (scene: Scene) => Promise<void>

export interface RoundOptions extends Choice {
  readonly sabotage?: Sabotage | undefined
  /** Where the folder of a round that failed is kept. */
  readonly evidenceFolder: string
}

export async function runRound(bench: ChaosBench, seed: number, options: RoundOptions): Promise<RoundReport> {
  const { plan, chance } = planRound(seed, options)
  // What is made once for many rounds is no part of this one.
  if (plan.operation !== 'backup') await bench.library()
  const startedMs = performance.now()
  const round = new Round(bench, plan, chance)
  let violation: string | undefined
  let evidence: string | undefined
  try {
    await round.play(options.sabotage)
  } catch (error) {
    violation = error instanceof Violation ? error.message : ((error as Error).stack ?? String(error))
    evidence = await round
      .keepEvidence(options.evidenceFolder, error)
      .catch((failure) => `not kept: ${String(failure)}`)
  } finally {
    await round[Symbol.asyncDispose]()
  }
  const failed = round.outcomes.findLast((outcome) => outcome.kind === 'failed')
  return {
    seed,
    engine: plan.engine,
    operation: plan.operation,
    fault: plan.fault.name,
    storage: plan.storage,
    load: plan.load,
    notes: round.notes,
    outcomes: round.outcomes.map(({ kind }) => kind),
    ...(failed === undefined ? {} : { code: codeOf(failed.problem) }),
    landings: round.landings,
    verified: round.verified,
    restored: round.restored,
    swept: round.swept,
    ms: Math.round(performance.now() - startedMs),
    ...(violation === undefined ? {} : { violation }),
    ...(evidence === undefined ? {} : { evidence }),
    again: againAs(seed, options),
  }
}

/** Of the cause, where one error stands for another. */
function codeOf({ code, facts }: Problem): string {
  const { causeCode } = facts
  return typeof causeCode === 'string' ? causeCode : code
}

/** What the rounds of all operations have in common. */
export class Round implements AsyncDisposable {
  readonly bench: ChaosBench
  readonly plan: RoundPlan
  readonly chance: Random
  /** Ends with the round. */
  readonly stack = new AsyncDisposableStack()
  readonly notes: string[] = []
  readonly outcomes: AnyOutcome[] = []
  readonly landings: Landing[] = []
  verified = 0
  restored = 0
  swept = 0
  #scene: Scene | undefined
  #said = ''

  constructor(bench: ChaosBench, plan: RoundPlan, chance: Random) {
    this.bench = bench
    this.plan = plan
    this.chance = chance
  }

  async play(sabotage: Sabotage | undefined): Promise<void> {
    await this.bench.heal()
    const scene = await this.#setUp()
    const { operation } = this.plan
    switch (operation) {
      case 'backup':
        return await playBackup(this, scene, sabotage)
      case 'restore':
        return await playRestore(this, scene, sabotage)
      case 'copy':
        return await playCopy(this, scene, sabotage)
      case 'resume':
        return await playResume(this, scene, sabotage)
      default:
        return operation satisfies never
    }
  }

  /** Where a copy comes from. */
  copySource(): Place {
    return this.plan.storage === 's3' ? 'offsite' : 'local'
  }

  /** Where it goes. */
  copyTarget(): RepositoryChoice {
    const { storage, seed } = this.plan
    if (storage === 'both') return this.bench.bucketAt(`round-${seed}`)
    return { url: `file://${this.#scene?.fleet.folder.join(COPY_TARGET) ?? ''}`, shared: true }
  }

  /** An empty directory for a restore, on a small disk where the fault fills it. */
  async newTarget({ fleet }: Scene): Promise<string> {
    const target = await fleet.newTarget('target')
    if (this.plan.fault.disk === 'target') await mountSmallDisk(target, 160 * MiB, this.stack)
    return target
  }

  async #setUp(): Promise<Scene> {
    const { operation, storage, seed, fault } = this.plan
    const { server, store, source, redis } = this.bench
    const library = operation === 'backup' ? undefined : await this.bench.library()
    const fleet = this.stack.use(
      await Fleet.create({
        clusters: { main: { host: server.host, port: server.port, user: source.user, password: source.password } },
        repositories: {},
        env: { ...awsEnvironment(store), ...library?.env },
      }),
    )
    const folder = operation === 'copy' ? COPY_TARGET : 'local'
    const writesFolder = operation === 'copy' ? storage !== 'both' : operation === 'backup' && storage !== 's3'
    const scene = { fleet, source, folders: writesFolder ? [folder] : [], debris: new Set<string>() }
    this.#scene = scene
    const local = library?.choices.local ?? { url: `file://${fleet.folder.join('local')}`, shared: true }
    const offsite = library?.choices.offsite ?? {
      ...this.bench.bucketAt(`round-${seed}`),
      required: storage === 's3' || this.chance.next() < 0.5,
    }
    const repositories =
      operation === 'copy'
        ? { [COPY_TARGET]: this.copyTarget(), ...(storage === 's3' ? { offsite } : { local }) }
        : { ...(storage === 's3' ? {} : { local }), ...(storage === 'file' ? {} : { offsite }) }
    await fleet.configure({
      repositories,
      // A prefix of its own: no job of an earlier round is seen.
      redis: { url: redis.url, prefix: `{round-${seed}}` },
      backup: { packBytes: '1MiB', threads: this.chance.integer(1, 2) },
    })
    if (fault.disk === 'repository') await mountSmallDisk(fleet.folder.join(folder), 96 * MiB, this.stack)
    // Of a copy, the new repository joins the set that it will be copied from.
    if (operation === 'backup' || operation === 'copy') await initHere(fleet.config)
    return scene
  }

  /** Has the task carried out while the fault is armed; everything is healed when it resolves. */
  async underFault(scene: Scene, task: Task, probe: LandingProbe): Promise<AnyOutcome> {
    const { bench, chance } = this
    const { engine, fault, operation, storage } = this.plan
    const begun = Promise.withResolvers<Run>()
    begun.promise.catch(() => {})
    const landing = await probe()
    let struck = false
    await using undo = new AsyncDisposableStack()
    await fault.arm({
      bench,
      chance,
      engine,
      operation,
      storage,
      repositoryFolder: scene.fleet.folder.join(scene.folders[0] ?? ''),
      target: task.do === 'restore' ? task.target : '',
      run: begun.promise,
      note: (text) => void this.notes.push(text),
      undo,
    })
    const options = fault.options?.(chance) ?? {}
    if (fault.options !== undefined) this.notes.push(JSON.stringify(options))
    const begin = beginRun(engine, scene.fleet, task, options).catch((error: unknown) => {
      begun.reject(error)
      throw error
    })
    let outcome: AnyOutcome
    {
      await using run = await begin
      const kill = async (): Promise<void> => {
        struck = true
        await run.kill(async () => void this.landings.push(await landing()))
      }
      begun.resolve({ ...run, kill })
      try {
        outcome = await run.outcome
      } finally {
        this.#said += `${run.said()}\n----\n`
      }
    }
    if (fault.name === TERMINATE && outcome.kind === 'killed')
      demand((await landing()) === 'before', 'a program that had begun died of SIGTERM without a word', task)
    if (fault.name === KILL && !struck) this.landings.push('after')
    this.outcomes.push(outcome)
    await bench.heal()
    return outcome
  }

  /** The round's folder with configuration, repository and targets, and what everybody said. */
  async keepEvidence(folder: string, error: unknown): Promise<string> {
    const place = `${folder}/round-${this.plan.seed}`
    await mkdir(place, { recursive: true })
    const { plan, notes, outcomes, landings, bench } = this
    const requests = bench.store.seen.slice(-400).map(({ method, path, fault }) => [method, path, fault])
    await writeFile(
      `${place}/round.json`,
      JSON.stringify(
        {
          ...plan,
          fault: plan.fault.name,
          notes,
          outcomes,
          landings,
          error: String((error as Error).stack),
          key: this.#scene?.fleet.env['BACKUP_ENCRYPTION_KEY'],
          requests,
        },
        undefined,
        1,
      ),
    )
    await writeFile(`${place}/said.txt`, this.#said)
    await writeFile(`${place}/postgres.log`, bench.source.log().slice(-100_000))
    const from = this.#scene?.fleet.folder.path
    if (from !== undefined) await cp(from, `${place}/files`, { recursive: true, errorOnExist: false }).catch(() => {})
    return place
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.bench.heal()
    await this.stack.disposeAsync()
    if (this.plan.operation === 'backup') await untilLetGo(this.bench.source)
  }
}
