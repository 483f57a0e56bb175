import type { CopyResult } from '@tidemark/contracts'
import {
  type OperationalError,
  type ReportProgress,
  problemOf,
  OperationalError as Operational,
} from '@tidemark/kernel'
import {
  BackupNotFoundError,
  type RecordAt,
  type Repository,
  type RepositorySet,
  SetMismatchError,
  findBackup,
  listRecordNames,
  recordAt,
} from '@tidemark/repository'
import { type CopyOutcome, copyBackup } from '../copy/copy-backup.ts'
import { CopyIncompleteError, UnknownNameError } from '../errors.ts'
import { type ConfiguredDeps, openConfiguredSet, repositoryNames, requireName } from './open-configured-set.ts'

export interface CopyConfiguredRequest {
  /** Undefined: any other repository that has the backup, in the order of the configuration. */
  readonly from: string | undefined
  readonly to: string
  /** An id, the unique beginning of one, `latest`; or `missing`: every backup that `to` lacks, oldest first. */
  readonly backup: string
  readonly cluster: string | undefined
}

type Deps = ConfiguredDeps & { readonly progress: ReportProgress }

/**
 * copyBackup between repositories of tidemark.yaml. Needs no key.
 *
 * @throws {CopyIncompleteError} some were not copied; the others were. @throws {BackupNotFoundError} @throws {UnknownNameError}
 */
export async function copyConfigured(request: CopyConfiguredRequest, deps: Deps): Promise<CopyResult> {
  const { config, signal } = deps
  const { from, to, backup, cluster } = request
  requireName(config, 'repository', to)
  const others = repositoryNames(config, cluster, from === undefined ? undefined : [from]).filter((name) => name !== to)
  if (others.length === 0) throw new UnknownNameError('repository', `another than ${to} to copy from`, others)
  // The target alone first: a copy without it is none, whether or not it is required.
  await using alone = await openConfiguredSet([to], 'write', deps)
  await using opened = await openConfiguredSet([to, ...others], 'read', deps)
  const [target] = alone.set.repositories
  if (target === undefined) throw new RangeError('a set without the repository it was opened for')
  if (target.marker.setId !== opened.set.setId || alone.set.publicKey !== opened.set.publicKey) {
    const all = [target, ...opened.set.repositories]
    throw new SetMismatchError(
      all.map(({ name, marker }) => ({ repository: name, setId: marker.setId, publicKey: marker.publicKey })),
    )
  }
  const sources = opened.set.repositories.filter(({ name }) => name !== to)
  const failed: { backupId: string; problem: ReturnType<typeof problemOf> }[] = []
  const copied: CopyOutcome[] = []
  if (sources.length === 0) throw new CopyIncompleteError(to, opened.unavailable.map(unavailableAs(backup)), [])
  const wanted =
    backup === 'missing'
      ? await missingBackups(sources, target, cluster, signal)
      : [await theBackup(opened.set, sources, backup, cluster, deps)]
  for (const { at, holders } of wanted) {
    const outcome = await copyFromAny(at, holders, target, opened.set.publicKey, deps)
    if ('outcome' in outcome) copied.push(outcome)
    else failed.push({ backupId: at.backupId, problem: problemOf(outcome) })
  }
  if (failed.length > 0)
    throw new CopyIncompleteError(
      to,
      failed,
      copied.map(({ backupId }) => backupId),
    )
  const unavailable = opened.unavailable.map(({ name }) => name)
  return { verb: 'copy', to, backups: copied.map((outcome) => ({ ...outcome })), unavailable }
}

interface Wanted {
  readonly at: RecordAt
  readonly holders: readonly Repository[]
}

function unavailableAs(backup: string) {
  return ({ problem }: { readonly problem: ReturnType<typeof problemOf> }) => ({ backupId: backup, problem })
}

async function theBackup(
  set: RepositorySet,
  sources: readonly Repository[],
  backup: string,
  cluster: string | undefined,
  { signal }: Deps,
): Promise<Wanted> {
  const { record, repository } = await findBackup(set, sources, backup, cluster, signal)
  return { at: recordAt(record), holders: [repository, ...sources.filter((source) => source !== repository)] }
}

/** Oldest first, so that a backup comes after those whose packs it shares. */
async function missingBackups(
  sources: readonly Repository[],
  target: Repository,
  cluster: string | undefined,
  signal: AbortSignal,
): Promise<Wanted[]> {
  const there = new Set<string>()
  for await (const { name } of listRecordNames(target, cluster, signal)) there.add(name)
  const missing = new Map<string, { at: RecordAt; holders: Repository[] }>()
  for (const source of sources) {
    for await (const at of listRecordNames(source, cluster, signal)) {
      if (there.has(at.name)) continue
      const known = missing.get(at.name)
      if (known === undefined) missing.set(at.name, { at, holders: [source] })
      else known.holders.push(source)
    }
  }
  return [...missing.values()].toSorted((a, b) => (a.at.stoppedAt < b.at.stoppedAt ? -1 : 1))
}

/** @returns the first error, where no source could give it. */
async function copyFromAny(
  at: RecordAt,
  holders: readonly Repository[],
  to: Repository,
  publicKey: string,
  deps: Deps,
): Promise<CopyOutcome | OperationalError> {
  let first: OperationalError | undefined
  for (const from of holders) {
    try {
      return await copyBackup({ from, to, at }, { ...deps, publicKey })
    } catch (error) {
      if (deps.signal.aborted || !(error instanceof Operational)) throw error
      first ??= error
      const { code, message } = error
      deps.logger.warn(
        { backupId: at.backupId, from: from.name, to: to.name, code, reason: message },
        'backup not copied',
      )
    }
  }
  return first ?? new BackupNotFoundError(at.backupId, at.cluster)
}
