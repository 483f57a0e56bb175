/** Commit records as a reader finds them. A backup that is not here does not exist. */
import { createHash } from 'node:crypto'
import { openSignedDocument } from '@tidemark/crypto'
import { type Problem, problemOf, throwIfAborted } from '@tidemark/kernel'
import { ObjectNotFoundError } from '@tidemark/storage'
import { BackupAmbiguousError, BackupIncompleteError, BackupNotFoundError, DocumentDamagedError } from '../errors.ts'
import { CLUSTERS, ClusterLayout, PACK_TABLE, compactTime, parseRecordName } from '../layout.ts'
import type { Repository, RepositorySet } from '../set/repository.ts'
import { type CommitRecord, commitRecordSchema, parseDocument } from './documents.ts'
import { type PackTable, decodePackTable } from './pack-table.ts'

export interface RecordName {
  readonly name: string
  readonly cluster: string
  readonly systemId: string
  readonly backupId: string
  /** Compact time, as in the name. */
  readonly stoppedAt: string
}

/** A listed backup: its record, or why the record cannot be trusted. */
export type ListedBackup = RecordName & ({ readonly record: CommitRecord } | { readonly untrusted: Problem })

/** Record names, oldest first within each system; costs listing pages only. */
export async function* listRecordNames(
  repository: Repository,
  cluster: string | undefined,
  signal: AbortSignal,
): AsyncGenerator<RecordName> {
  const clusters = cluster === undefined ? folders(repository, CLUSTERS, signal) : [`${CLUSTERS}${cluster}/`]
  for await (const clusterFolder of clusters) {
    for await (const systemFolder of folders(repository, clusterFolder, signal)) {
      for await (const { name } of repository.store.list(`${systemFolder}records/`, { signal })) {
        const parsed = parseRecordName(name)
        if (parsed !== undefined) yield { name, ...parsed }
      }
    }
  }
}

async function* folders(repository: Repository, prefix: string, signal: AbortSignal): AsyncGenerator<string> {
  yield* repository.store.listFolders(prefix, signal)
}

/**
 * A record, after its signature held and it turned out to be the one its name says, in every part: under a later
 * time, a copy of an old record would pass for the newest backup.
 *
 * @throws {SignatureRefusedError} @throws {DocumentDamagedError} @throws {FormatVersionError}
 */
export async function readRecord(
  repository: Repository,
  publicKey: string,
  at: RecordName,
  signal: AbortSignal,
): Promise<CommitRecord> {
  const what = `record ${at.backupId} in ${repository.name}`
  const bytes = await repository.store.get(at.name, { signal })
  const record = parseDocument(commitRecordSchema, openSignedDocument(bytes, publicKey, what), what)
  if (
    record.backupId !== at.backupId ||
    record.cluster !== at.cluster ||
    record.systemId !== at.systemId ||
    compactTime(new Date(record.stoppedAt)) !== at.stoppedAt ||
    record.setId !== repository.marker.setId
  ) {
    throw new DocumentDamagedError(what, 'it is the record of another backup, or lies under another name than its own')
  }
  return record
}

/** Every backup of a repository, newest last. A record that is not to be trusted is listed as such, never hidden. */
export async function listBackups(
  repository: Repository,
  publicKey: string,
  cluster: string | undefined,
  signal: AbortSignal,
): Promise<ListedBackup[]> {
  const listed: ListedBackup[] = []
  for await (const at of listRecordNames(repository, cluster, signal)) {
    try {
      listed.push({ ...at, record: await readRecord(repository, publicKey, at, signal) })
    } catch (error) {
      const untrusted = problemOf(error)
      if (untrusted.retry !== 'never') throw error
      listed.push({ ...at, untrusted })
    }
  }
  return listed.toSorted((a, b) => (a.stoppedAt < b.stoppedAt ? -1 : a.stoppedAt > b.stoppedAt ? 1 : 0))
}

export interface FoundBackup {
  readonly repository: Repository
  readonly record: CommitRecord
}

/**
 * A backup by id, unique beginning of an id, or `latest` (the newest intact one).
 *
 * @param repositories where to look, in this order.
 * @throws {BackupNotFoundError} @throws {BackupAmbiguousError}; what reading the record throws.
 */
export async function findBackup(
  set: RepositorySet,
  repositories: readonly Repository[],
  wanted: string,
  cluster: string | undefined,
  signal: AbortSignal,
): Promise<FoundBackup> {
  let unread: unknown
  const all: FoundBackup[] = []
  for (const repository of repositories) {
    try {
      throwIfAborted(signal, 'the search for the backup')
      const names: RecordName[] = []
      for await (const at of listRecordNames(repository, cluster, signal)) {
        if (wanted === 'latest' || at.backupId.startsWith(wanted)) names.push(at)
      }
      const record =
        wanted === 'latest'
          ? await newestIntact(repository, set.publicKey, names, signal)
          : await theOne(repository, set.publicKey, names, wanted, signal)
      if (record !== undefined) all.push({ repository, record })
      if (record?.backupId === wanted) break
    } catch (error) {
      if (error instanceof BackupAmbiguousError) throw error
      unread ??= error
    }
  }
  const ids = new Set(all.map(({ record }) => record.backupId))
  const clusters = new Set(all.map(({ record }) => record.cluster))
  if (clusters.size > 1 || (wanted !== 'latest' && ids.size > 1)) throw new BackupAmbiguousError(wanted, [...ids])
  // A repository that missed the last run has an older newest one.
  const [newest] = all.toSorted((a, b) => (a.record.stoppedAt < b.record.stoppedAt ? 1 : -1))
  if (newest !== undefined) return all.find(({ record }) => record.backupId === newest.record.backupId) ?? newest
  throw unread ?? new BackupNotFoundError(wanted, cluster)
}

async function theOne(
  repository: Repository,
  publicKey: string,
  names: readonly RecordName[],
  wanted: string,
  signal: AbortSignal,
): Promise<CommitRecord | undefined> {
  const ids = new Set(names.map(({ backupId }) => backupId))
  if (ids.size > 1) throw new BackupAmbiguousError(wanted, [...ids])
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

async function newestIntact(
  repository: Repository,
  publicKey: string,
  names: readonly RecordName[],
  signal: AbortSignal,
): Promise<CommitRecord | undefined> {
  const clusters = new Set(names.map(({ cluster }) => cluster))
  if (clusters.size > 1)
    throw new BackupAmbiguousError(
      'latest',
      [...clusters].map((name) => `latest of ${name}`),
    )
  for (const at of names.toSorted((a, b) => (a.stoppedAt < b.stoppedAt ? 1 : -1))) {
    const record = await readRecord(repository, publicKey, at, signal)
    if (record.verdict === 'intact') return record
  }
  return undefined
}

/**
 * The pack table that the record vouches for.
 *
 * @throws {BackupIncompleteError} it is gone. @throws {DocumentDamagedError} it is not the recorded one.
 */
export async function readPackTable(
  repository: Repository,
  record: CommitRecord,
  signal: AbortSignal,
): Promise<PackTable> {
  const name = new ClusterLayout(record.cluster, record.systemId).base(record.backupId) + PACK_TABLE
  let bytes: Buffer
  try {
    bytes = await repository.store.get(name, { signal })
  } catch (error) {
    if (error instanceof ObjectNotFoundError)
      throw new BackupIncompleteError(record.backupId, `its pack table in ${repository.name}`, error)
    throw error
  }
  const what = `pack table of backup ${record.backupId} in ${repository.name}`
  const sha256 = createHash('sha256').update(bytes).digest('hex')
  if (sha256 !== record.packTable.sha256) throw new DocumentDamagedError(what, 'its SHA-256 is not the recorded one')
  const table = decodePackTable(bytes, what)
  if (table.backupId !== record.backupId) throw new DocumentDamagedError(what, 'it is of another backup')
  return table
}
