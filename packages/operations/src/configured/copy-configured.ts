import type { CopyResult } from '@tidemark/contracts'
import { OperationalError, type ReportProgress, problemOf } from '@tidemark/kernel'
import {
  BackupAmbiguousError,
  type RecordAt,
  type Repository,
  SetMismatchError,
  findBackup,
  listRecordNames,
  recordAt,
} from '@tidemark/repository'
import type { CopyOutcome } from '../copy/copy-backup.ts'
import { type WantedCopy, copyWanted } from '../copy/copy-wanted.ts'
import { CopyIncompleteError, UnknownNameError } from '../errors.ts'
import {
  type ConfiguredDeps,
  type ConfiguredSet,
  openConfiguredSet,
  repositoryNames,
  requireAllForLatest,
  requireName,
} from './open-configured-set.ts'

export interface CopyConfiguredRequest {
  /** Undefined: any other repository that has the backup, in the order of the configuration. */
  readonly from: string | undefined
  readonly to: string
  /** An id, the unique beginning of one, `latest`; or `missing`: every backup that `to` lacks, oldest first. */
  readonly backup: string
  readonly cluster: string | undefined
}

type Deps = ConfiguredDeps & {
  readonly progress: ReportProgress
  /**
   * Called for each backup as soon as it is in the target, before the next: what was copied is told even where another one fails. One that was
   * there already is told only where it was asked for by itself: its copy may have been made by a run that died before it told.
   */
  readonly onCopied?: (copy: { readonly backupId: string; readonly cluster: string }) => Promise<void>
}

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
  if (sources.length === 0) throw new CopyIncompleteError(to, opened.unavailable.map(unavailableAs(backup)), [])
  const wanted =
    backup === 'missing'
      ? await missingBackups(sources, target, cluster, signal)
      : [await theBackup(request, opened, sources, deps)]
  const onDone = async (copy: CopyOutcome): Promise<void> => {
    if (copy.outcome === 'copied' || backup !== 'missing') await deps.onCopied?.(copy)
  }
  const plan = { to: target, wanted, sources, unavailable: opened.unavailable }
  const done = await copyWanted(plan, onDone, { ...deps, publicKey: opened.set.publicKey })
  const unavailable = opened.unavailable.map(({ name }) => name)
  return { verb: 'copy', to, backups: done.map((outcome) => ({ ...outcome })), unavailable }
}

function unavailableAs(backup: string) {
  return ({ problem }: { readonly problem: ReturnType<typeof problemOf> }) => ({ backupId: backup, problem })
}

/** @throws {CopyIncompleteError} it is not found where there is an answer, and not all answer: no reason to give it up. */
async function theBackup(
  { to, from, backup, cluster }: CopyConfiguredRequest,
  opened: ConfiguredSet,
  sources: readonly Repository[],
  { signal }: Deps,
): Promise<WantedCopy> {
  requireAllForLatest(backup, from, opened)
  try {
    const { record, repository } = await findBackup(opened.set, sources, backup, cluster, signal)
    return { at: recordAt(record), holders: [repository, ...sources.filter((source) => source !== repository)] }
  } catch (error) {
    if (opened.unavailable.length === 0 || error instanceof BackupAmbiguousError) throw error
    if (!(error instanceof OperationalError) || error.retry !== 'never') throw error
    throw new CopyIncompleteError(
      to,
      [...opened.unavailable.map(unavailableAs(backup)), { backupId: backup, problem: problemOf(error) }],
      [],
    )
  }
}

/** Oldest first, so that a backup comes after those whose packs it shares. */
async function missingBackups(
  sources: readonly Repository[],
  target: Repository,
  cluster: string | undefined,
  signal: AbortSignal,
): Promise<WantedCopy[]> {
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
