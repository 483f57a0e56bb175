/** From what an operator calls a backup to its record. */
import { soonestToPass, throwIfAborted } from '@tidemark/kernel'
import { BackupAmbiguousError, BackupNotFoundError } from '../errors.ts'
import type { Repository, RepositorySet } from '../set/repository.ts'
import type { CommitRecord } from './documents.ts'
import { findLatest } from './find-latest.ts'
import { type FoundBackup, type RecordName, listRecordNames, readRecord } from './read-records.ts'

/**
 * A backup by id, unique beginning of an id, or `latest`: the newest intact one by what the source said, as far as the clocks do not contradict it.
 *
 * @param repositories where to look, in this order.
 * @throws {BackupNotFoundError} @throws {BackupAmbiguousError} @throws {LatestUncertainError}; what reading the record throws.
 */
export async function findBackup(
  set: RepositorySet,
  repositories: readonly Repository[],
  wanted: string,
  cluster: string | undefined,
  signal: AbortSignal,
): Promise<FoundBackup> {
  if (wanted === 'latest') return findLatest(set.publicKey, repositories, cluster, signal)
  const unread: unknown[] = []
  const all: FoundBackup[] = []
  for (const repository of repositories) {
    try {
      throwIfAborted(signal, 'the search for the backup')
      const record = await theOne(repository, set.publicKey, cluster, wanted, signal)
      if (record !== undefined) all.push({ repository, record })
      if (record?.backupId === wanted) break
    } catch (error) {
      if (error instanceof BackupAmbiguousError) throw error
      unread.push(error)
    }
  }
  const ids = new Set(all.map(({ record }) => record.backupId))
  const clusters = new Set(all.map(({ record }) => record.cluster))
  if (clusters.size > 1 || ids.size > 1) throw new BackupAmbiguousError(wanted, [...ids])
  const [first] = all
  if (first !== undefined) return first
  if (unread.length > 0) throw soonestToPass(unread)
  throw new BackupNotFoundError(wanted, cluster)
}

async function theOne(
  repository: Repository,
  publicKey: string,
  cluster: string | undefined,
  wanted: string,
  signal: AbortSignal,
): Promise<CommitRecord | undefined> {
  const names: RecordName[] = []
  for await (const at of listRecordNames(repository, cluster, signal)) {
    if (!at.backupId.startsWith(wanted)) continue
    names.push(at)
    const ids = new Set(names.map(({ backupId }) => backupId))
    if (ids.size > 1) throw new BackupAmbiguousError(wanted, [...ids])
  }
  let unread: unknown
  for (const at of names) {
    try {
      return await readRecord(repository, publicKey, at, signal)
    } catch (error) {
      // Another name may hold the true one: a false record beside it must not hide it.
      unread ??= error
    }
  }
  if (unread !== undefined) throw unread
  return undefined
}
