/** The verbs in this process, on a fleet's configuration: the same functions that workers and command line call, with short deadlines. */
import { randomBytes } from 'node:crypto'
import type { Config } from '@tidemark/config'
import {
  type BackupOptions,
  type BackupResult,
  type CopyResult,
  type RestoreResult,
  type SweepResult,
  type VerifyResult,
  backupOptionsSchema,
  newOperationId,
} from '@tidemark/contracts'
import { type Clock, type Problem, type ReportProgress, problemOf, silentLogger, systemClock } from '@tidemark/kernel'
import {
  type ConfiguredDeps,
  type Patience,
  type TargetMode,
  backupCluster,
  copyConfigured,
  openConfiguredSet,
  openConfiguredStore,
  keysOf,
  restoreConfigured,
  sweepConfigured,
  verifyConfigured,
} from '@tidemark/operations'
import { type ListedBackup, initRepositorySet, listBackups } from '@tidemark/repository'

/** Gives up within seconds what an operator's deadlines give up within minutes; the rules are the same. */
export const SHORT_PATIENCE: Patience = {
  server: { connectTimeoutMs: 2000, idleTimeoutMs: 1500, stallTimeoutMs: 2000 },
  store: {
    timing: { connectMs: 1000, idleMs: 1000, requestMs: 1000, slowestBytesPerSecond: 4 * 1024 * 1024 },
    retry: { attempts: 4, baseMs: 10, capMs: 100, callMs: 10_000 },
  },
}

export interface OperateOptions {
  readonly clock?: Clock
  readonly signal?: AbortSignal
  readonly patience?: Patience
  readonly progress?: ReportProgress
}

type Running = ConfiguredDeps & { readonly progress: ReportProgress }

function depsOf(config: Config, options: OperateOptions): Running {
  return {
    config,
    clock: options.clock ?? systemClock,
    logger: silentLogger,
    signal: options.signal ?? new AbortController().signal,
    progress: options.progress ?? (() => {}),
    patience: options.patience ?? SHORT_PATIENCE,
  }
}

export interface BackupHere extends OperateOptions {
  readonly operationId?: string
  readonly requestedAt?: Date
  readonly options?: Partial<BackupOptions>
}

export function newBackupOperationId(): string {
  return newOperationId('backup', Date.now(), randomBytes(10))
}

export function backupHere(config: Config, options: BackupHere = {}): Promise<BackupResult> {
  return backupCluster(
    {
      cluster: 'main',
      operationId: options.operationId ?? newBackupOperationId(),
      requestedAt: options.requestedAt ?? new Date(),
      options: backupOptionsSchema.parse({ ...options.options }),
    },
    depsOf(config, options),
  )
}

export function restoreHere(
  config: Config,
  backup: string,
  targetDirectory: string,
  options: OperateOptions & { readonly repository?: string; readonly mode?: TargetMode } = {},
): Promise<RestoreResult> {
  const { repository, mode = 'new' } = options
  return restoreConfigured(
    {
      backup,
      cluster: 'main',
      repository,
      targetDirectory,
      profile: 'clone',
      owner: undefined,
      allowDamaged: false,
      mode,
    },
    depsOf(config, options),
  )
}

/** Every backup that `to` lacks. */
export function copyHere(config: Config, to: string, options: OperateOptions = {}): Promise<CopyResult> {
  return copyConfigured({ from: undefined, to, backup: 'missing', cluster: 'main' }, depsOf(config, options))
}

export function sweepHere(config: Config, repository: string): Promise<SweepResult> {
  return sweepConfigured({ repositories: [repository], cluster: undefined, dryRun: false }, depsOf(config, {}))
}

/** Names with sizes, in one repository. */
export async function objectsHere(config: Config, repository: string, prefix: string): Promise<Map<string, number>> {
  const deps = depsOf(config, {})
  const found = config.repositories[repository]
  if (found === undefined) throw new RangeError(`${repository} is not configured`)
  await using store = await openConfiguredStore(found, deps, false)
  const objects = new Map<string, number>()
  for await (const { name, size } of store.list(prefix, { signal: deps.signal })) objects.set(name, size)
  return objects
}

export function verifyHere(config: Config, backup: string, repository?: string): Promise<VerifyResult> {
  return verifyConfigured({ backup, cluster: 'main', repository, level: 'contents' }, depsOf(config, {}))
}

export interface ListedHere {
  readonly repository: string
  readonly required: boolean
  readonly backups: readonly ListedBackup[]
  /** Left of capability probes. */
  readonly scratch: readonly string[]
}

/** What each repository lists; fails when one of them does not answer. */
export async function listHere(
  config: Config,
  repositories: readonly string[] = Object.keys(config.repositories),
): Promise<readonly ListedHere[]> {
  const deps = depsOf(config, {})
  await using opened = await openConfiguredSet(repositories, 'read', deps)
  const [away] = opened.unavailable
  if (away !== undefined) throw new Error(`${away.name} does not answer: ${away.problem.message}`)
  return await Promise.all(
    opened.set.repositories.map(async (place): Promise<ListedHere> => {
      const scratch: string[] = []
      for await (const { name } of place.store.list('scratch/', { signal: deps.signal })) scratch.push(name)
      return {
        repository: place.name,
        required: place.required,
        backups: (await listBackups(place, opened.set.publicKey, { limit: 10_000 }, deps.signal)).backups,
        scratch,
      }
    }),
  )
}

/** `repo init` of everything that is configured. */
export async function initHere(config: Config): Promise<void> {
  const deps = depsOf(config, {})
  await using stores = new AsyncDisposableStack()
  const places = []
  for (const repository of Object.values(config.repositories)) {
    const store = stores.use(await openConfiguredStore(repository, deps, true))
    places.push({ name: repository.name, required: repository.required, store })
  }
  await initRepositorySet(places, keysOf(config), undefined, deps)
}

/** How an operation ended, wherever it ran. */
export type Outcome<Result> =
  | { readonly kind: 'succeeded'; readonly result: Result }
  | { readonly kind: 'failed'; readonly problem: Problem }
  /** It was killed: it could say nothing. */
  | { readonly kind: 'killed' }

export function outcomeOf<Result>(work: Promise<Result>): Promise<Outcome<Result>> {
  return work.then(
    (result) => ({ kind: 'succeeded', result }),
    (error: unknown) => ({ kind: 'failed', problem: problemOf(error) }),
  )
}
