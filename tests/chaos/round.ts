/**
 * One round: an operation under a fault, then the promises that hold after any fault, then a clean backup or restore, compared with the source.
 *
 * Everything random comes from the round's seed.
 */
import { cp, mkdir, writeFile } from 'node:fs/promises'
import { type Problem, parseLsn } from '@tidemark/kernel'
import { type Random, type TestPostgres, random } from '@tidemark/testkit'
import type { BackupResult, RestoreResult } from '@tidemark/contracts'
import { type Scene, Violation, afterBackup, afterRestore, equalTo, tolerateDebris } from '../support/aftermath.ts'
import { Fleet, type RepositoryChoice, awsEnvironment, untilLetGo } from '../support/fleet.ts'
import { type Outcome, backupHere, initHere, listHere, outcomeOf, restoreHere } from '../support/operate.ts'
import { fingerprint } from '../support/sample-cluster.ts'
import type { ChaosBench } from './bench.ts'
import { type AnyOutcome, type Engine, type Run, beginRun } from './engines.ts'
import { FAULTS, type FaultKind, type Operation, type Storage, mountSmallDisk } from './faults.ts'
import { TickLoad, wrongTicks } from './load.ts'

const MiB = 1_048_576
const SHARE_UNDER_LOAD = 0.25
/** As `fingerprint` names it. */
const TICKS = 'public.ticks'

export interface RoundPlan {
  readonly seed: number
  readonly engine: Engine
  readonly operation: Operation
  readonly fault: FaultKind
  readonly storage: Storage
  /** Rows are written during the backup. */
  readonly load: boolean
}

export interface RoundReport {
  readonly seed: number
  readonly engine: Engine
  readonly operation: Operation
  readonly fault: string
  readonly storage: string
  readonly load: boolean
  readonly notes: readonly string[]
  readonly outcome: AnyOutcome['kind'] | 'none'
  /** Of the failure. */
  readonly code?: string
  readonly verified: number
  readonly restored: number
  readonly ms: number
  readonly violation?: string
  readonly evidence?: string
}

/** For proof that a campaign can fail: what is done to the repository between the fault and the checks. */
export type Sabotage = (scene: Scene) => Promise<void>

export interface RoundOptions {
  /** Only faults of this name. */
  readonly fault?: string | undefined
  readonly sabotage?: Sabotage | undefined
  /** Where the folder of a round that failed is kept. */
  readonly evidenceFolder: string
}

export function planRound(
  seed: number,
  options: Pick<RoundOptions, 'fault'> = {},
): { plan: RoundPlan; chance: Random } {
  const chance = random(seed)
  const isRoot = process.getuid?.() === 0
  const possible = FAULTS.filter(({ disk, name }) => (isRoot || disk === undefined) && name === (options.fault ?? name))
  const fault = chance.pick(possible.flatMap((kind) => Array.from({ length: kind.weight }, () => kind)))
  const operation = chance.pick(fault.operations)
  const plan: RoundPlan = {
    seed,
    fault,
    operation,
    engine: chance.pick(fault.engines),
    storage: chance.pick(fault.storage),
    load: operation === 'backup' && chance.next() < SHARE_UNDER_LOAD,
  }
  return { plan, chance }
}

export async function runRound(bench: ChaosBench, seed: number, options: RoundOptions): Promise<RoundReport> {
  const { plan, chance } = planRound(seed, options)
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
  const { outcome } = round
  return {
    seed,
    engine: plan.engine,
    operation: plan.operation,
    fault: plan.fault.name,
    storage: plan.storage,
    load: plan.load,
    notes: round.notes,
    outcome: outcome?.kind ?? 'none',
    ...(outcome?.kind === 'failed' ? { code: codeOf(outcome.problem) } : {}),
    verified: round.verified,
    restored: round.restored,
    ms: Math.round(performance.now() - startedMs),
    ...(violation === undefined ? {} : { violation }),
    ...(evidence === undefined ? {} : { evidence }),
  }
}

/** Of the cause, where one error stands for another. */
function codeOf({ code, facts }: Problem): string {
  const { causeCode } = facts
  return typeof causeCode === 'string' ? causeCode : code
}

class Round implements AsyncDisposable {
  readonly notes: string[] = []
  outcome: AnyOutcome | undefined
  verified = 0
  restored = 0
  readonly #bench: ChaosBench
  readonly #plan: RoundPlan
  readonly #chance: Random
  readonly #stack = new AsyncDisposableStack()
  #scene: Scene | undefined
  #before: Record<string, string> = {}
  #load: TickLoad | undefined
  #said = ''

  constructor(bench: ChaosBench, plan: RoundPlan, chance: Random) {
    this.#bench = bench
    this.#plan = plan
    this.#chance = chance
  }

  async play(sabotage: Sabotage | undefined): Promise<void> {
    const { operation } = this.#plan
    await this.#bench.heal()
    const scene = await this.#setUp()
    if (operation === 'backup') await this.#faultyBackup(scene, sabotage)
    else await this.#faultyRestore(scene, sabotage)
  }

  async #setUp(): Promise<Scene> {
    const { server, store, bucket, source, redis } = this.#bench
    const { storage, seed, fault } = this.#plan
    const { endpoint, region } = store
    const local: RepositoryChoice = { folder: 'local' }
    const offsite: RepositoryChoice = {
      url: `s3://${bucket}/round-${seed}`,
      endpoint,
      region,
      accessKeyId: { env: 'AWS_ACCESS_KEY_ID' },
      secretAccessKey: { env: 'AWS_SECRET_ACCESS_KEY' },
      required: storage === 's3' || this.#chance.next() < 0.5,
    }
    const repositories = { ...(storage === 's3' ? {} : { local }), ...(storage === 'file' ? {} : { offsite }) }
    const fleet = this.#stack.use(
      await Fleet.create({
        clusters: { main: { host: server.host, port: server.port, user: source.user, password: source.password } },
        repositories,
        packBytes: '1MiB',
        env: awsEnvironment(store),
      }),
    )
    // A prefix of its own: no job of an earlier round is seen.
    await fleet.configure({
      redis: { url: redis.url, prefix: `{round-${seed}}` },
      backup: { packBytes: '1MiB', threads: this.#chance.integer(1, 2) },
    })
    if (fault.disk === 'repository') await mountSmallDisk(fleet.folder.join('local'), 96 * MiB, this.#stack)
    await initHere(fleet.config)
    await this.#countTicks()
    const scene = { fleet, source, folders: storage === 's3' ? [] : ['local'], debris: new Set<string>() }
    this.#scene = scene
    return scene
  }

  async #countTicks(): Promise<void> {
    this.#before = await fingerprint(this.#bench.source)
    if (!this.#plan.load) return
    delete this.#before[TICKS]
  }

  async #faultyBackup(scene: Scene, sabotage: Sabotage | undefined): Promise<void> {
    if (this.#plan.load) this.#load = this.#stack.use(await TickLoad.begin(this.#bench.source))
    const outcome = (await this.#underFault(scene, { do: 'backup' })) as Outcome<BackupResult>
    await this.#load?.end()
    if (this.#plan.fault.leavesDebris === true) await tolerateDebris(scene)
    await sabotage?.(scene)
    const listing = await afterBackup(scene, outcome)
    const known = new Set(listing.flatMap(({ backups }) => backups.map(({ backupId }) => backupId)))
    this.verified += known.size
    for (const backupId of known) {
      const holders = listing.filter(({ backups }) => backups.some((backup) => backup.backupId === backupId))
      await this.#restoreAndCompare(scene, backupId, this.#chance.pick(holders).repository)
    }
    if (outcome.kind === 'succeeded' && this.#chance.next() < 0.5) return
    // Whatever happened, the next one works.
    const clean = await outcomeOf(backupHere(scene.fleet.config))
    if (clean.kind !== 'succeeded') throw new Violation(`a clean backup after the fault: ${JSON.stringify(clean)}`)
    await afterBackup(scene, clean, known)
    this.verified += 1
    await this.#restoreAndCompare(scene, clean.result.backupId)
  }

  async #faultyRestore(scene: Scene, sabotage: Sabotage | undefined): Promise<void> {
    const { backupId } = await backupHere(scene.fleet.config)
    await afterBackup(scene, { kind: 'killed' })
    this.verified += 1
    const target = await scene.fleet.newTarget('target')
    if (this.#plan.fault.disk === 'target') await mountSmallDisk(target, 160 * MiB, this.#stack)
    const task = { do: 'restore', backup: backupId, target } as const
    const outcome = (await this.#underFault(scene, task)) as Outcome<RestoreResult>
    await sabotage?.(scene)
    await afterRestore(outcome, target, this.#compare(backupId))
    if (outcome.kind === 'succeeded') this.restored += 1
    else await this.#restoreAndCompare(scene, backupId)
  }

  async #underFault(scene: Scene, task: Parameters<typeof beginRun>[2]): Promise<AnyOutcome> {
    const { engine, fault, operation, storage } = this.#plan
    const begun = Promise.withResolvers<Run>()
    begun.promise.catch(() => {})
    await using undo = new AsyncDisposableStack()
    await fault.arm({
      bench: this.#bench,
      chance: this.#chance,
      engine,
      operation,
      storage,
      repositoryFolder: scene.fleet.folder.join('local'),
      target: task.do === 'restore' ? task.target : '',
      run: begun.promise,
      note: (text) => void this.notes.push(text),
      undo,
    })
    const options = fault.options?.(this.#chance) ?? {}
    if (fault.options !== undefined) this.notes.push(JSON.stringify(options))
    const run = await beginRun(engine, scene.fleet, task, options).catch((error: unknown) => {
      begun.reject(error)
      throw error
    })
    await using _run = run
    begun.resolve(run)
    try {
      this.outcome = await run.outcome
    } finally {
      this.#said = run.said()
    }
    await this.#bench.heal()
    return this.outcome
  }

  /** @param repository read from there alone. */
  async #restoreAndCompare(scene: Scene, backupId: string, repository?: string): Promise<void> {
    const target = await scene.fleet.newTarget(`restored-${backupId}`)
    const from = repository === undefined ? {} : { repository }
    const outcome = await outcomeOf(restoreHere(scene.fleet.config, backupId, target, from))
    if (outcome.kind !== 'succeeded')
      throw new Violation(`restore of the listed ${backupId}: ${JSON.stringify(outcome)}`)
    await afterRestore(outcome, target, this.#compare(backupId))
    this.restored += 1
  }

  #compare(backupId: string): (copy: TestPostgres) => Promise<void> {
    return async (copy) => {
      const load = this.#load
      await equalTo(this.#before, load === undefined ? [] : [TICKS])(copy)
      if (load === undefined || this.#scene === undefined) return
      const listing = await listHere(this.#scene.fleet.config)
      const found = listing.flatMap(({ backups }) => backups).find((backup) => backup.backupId === backupId)
      if (found === undefined || !('record' in found)) throw new Violation(`${backupId} is not listed any more`)
      const wrong = await wrongTicks(copy, load, parseLsn(found.record.stopLsn))
      if (wrong !== undefined) throw new Violation(`rows written under load: ${JSON.stringify(wrong)}`)
    }
  }

  /** The round's folder with configuration, repository and targets, and what everybody said. */
  async keepEvidence(folder: string, error: unknown): Promise<string> {
    const place = `${folder}/round-${this.#plan.seed}`
    await mkdir(place, { recursive: true })
    const { plan, notes, outcome } = { plan: this.#plan, notes: this.notes, outcome: this.outcome }
    const requests = this.#bench.store.seen.slice(-400).map(({ method, path, fault }) => [method, path, fault])
    await writeFile(
      `${place}/round.json`,
      JSON.stringify(
        {
          ...plan,
          fault: plan.fault.name,
          notes,
          outcome,
          error: String((error as Error).stack),
          key: this.#scene?.fleet.env['BACKUP_ENCRYPTION_KEY'],
          requests,
        },
        undefined,
        1,
      ),
    )
    await writeFile(`${place}/said.txt`, this.#said)
    await writeFile(`${place}/postgres.log`, this.#bench.source.log().slice(-100_000))
    const from = this.#scene?.fleet.folder.path
    if (from !== undefined) await cp(from, `${place}/files`, { recursive: true, errorOnExist: false }).catch(() => {})
    return place
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#bench.heal()
    await this.#stack.disposeAsync()
    await untilLetGo(this.#bench.source)
  }
}
