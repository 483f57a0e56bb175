/** Commit records as a reader finds them. A backup that is not here does not exist. */
import { createHash } from 'node:crypto'
import { openSignedDocument } from '@tidemark/crypto'
import { type Problem, problemOf } from '@tidemark/kernel'
import { ObjectNotFoundError } from '@tidemark/storage'
import { BackupIncompleteError, DocumentDamagedError } from '../errors.ts'
import { CLUSTERS, ClusterLayout, PACK_TABLE, compactTime, parseRecordName } from '../layout.ts'
import { readPieces } from '../set/read-back.ts'
import type { Repository } from '../set/repository.ts'
import { MAX_BYTES } from './bounds.ts'
import { type CommitRecord, commitRecordSchema, parseDocument } from './documents.ts'
import { type PackTable, PackTableDecoder } from './pack-table.ts'

/** Names that a scan keeps by the store's time. */
const LAST_STORED = 15

export interface RecordName {
  readonly name: string
  readonly cluster: string
  readonly systemId: string
  readonly backupId: string
  /** Compact time, as in the name. */
  readonly stoppedAt: string
  /** When the store got it, by its own clock. */
  readonly modifiedAt: Date
}

/** What it takes to read a record. */
export type RecordAt = Omit<RecordName, 'modifiedAt'>

/** A listed backup: its record, or why the record cannot be trusted. */
export type ListedBackup = RecordName & ({ readonly record: CommitRecord } | { readonly untrusted: Problem })

/**
 * Record names, oldest first within each system; costs listing pages only.
 *
 * @param since compact time: earlier ones are not even listed.
 */
export async function* listRecordNames(
  repository: Repository,
  cluster: string | undefined,
  signal: AbortSignal,
  since?: string,
): AsyncGenerator<RecordName> {
  const clusters = cluster === undefined ? folders(repository, CLUSTERS, signal) : [`${CLUSTERS}${cluster}/`]
  for await (const clusterFolder of clusters) {
    for await (const systemFolder of folders(repository, clusterFolder, signal)) {
      const prefix = `${systemFolder}records/`
      const options = since === undefined ? { signal } : { signal, startAfter: prefix + since }
      for await (const { name, modifiedAt } of repository.store.list(prefix, options)) {
        const parsed = parseRecordName(name)
        if (parsed !== undefined) yield { name, modifiedAt, ...parsed }
      }
    }
  }
}

/** Where a page of a list begins: the stop time and id of the last backup before it. */
export function cursorOf({ stoppedAt, backupId }: RecordAt): string {
  return `${stoppedAt}-${backupId}`
}

/**
 * The newest record names, newest first: at most `limit`, and only those that come after the cursor `before`.
 *
 * Stores list in ascending order only, so it costs all listing pages, and memory for `limit` names.
 */
export async function newestRecordNames(
  repository: Repository,
  cluster: string | undefined,
  page: { readonly limit: number; readonly before?: string | undefined },
  signal: AbortSignal,
): Promise<RecordName[]> {
  return (await scanRecords(repository, cluster, page, signal)).names
}

/** As newestRecordNames, and in the same pass the few that the store got last, by its own clock. */
export async function scanRecords(
  repository: Repository,
  cluster: string | undefined,
  { limit, before }: { readonly limit: number; readonly before?: string | undefined },
  signal: AbortSignal,
): Promise<{ names: RecordName[]; lastStored: RecordName[] }> {
  let names: RecordName[] = []
  let lastStored: RecordName[] = []
  const keep = (): void => void (names = names.toSorted(newestFirst).slice(0, limit))
  const keepLast = (): void => void (lastStored = lastStored.toSorted(lastFirst).slice(0, LAST_STORED))
  for await (const at of listRecordNames(repository, cluster, signal)) {
    lastStored.push(at)
    if (lastStored.length >= 1000) keepLast()
    if (before !== undefined && cursorOf(at) >= before) continue
    names.push(at)
    if (names.length >= 2 * limit + 1000) keep()
  }
  keep()
  keepLast()
  return { names, lastStored }
}

function lastFirst(a: RecordName, b: RecordName): number {
  return b.modifiedAt.getTime() - a.modifiedAt.getTime()
}

function newestFirst(a: RecordName, b: RecordName): number {
  const [left, right] = [cursorOf(a), cursorOf(b)]
  return left < right ? 1 : left > right ? -1 : a.name < b.name ? 1 : -1
}

async function* folders(repository: Repository, prefix: string, signal: AbortSignal): AsyncGenerator<string> {
  yield* repository.store.listFolders(prefix, signal)
}

/**
 * A record, after its signature held and it turned out to be the one its name says, in every part: under a later
 * time, a copy of an old record would pass for the newest backup.
 *
 * @throws {SignatureRefusedError} @throws {DocumentDamagedError} @throws {FormatVersionError} @throws {ObjectTooLargeError}
 */
export async function readRecord(
  repository: Repository,
  publicKey: string,
  at: RecordAt,
  signal: AbortSignal,
): Promise<CommitRecord> {
  return (await readRecordDocument(repository, publicKey, at, signal)).record
}

/** As readRecord, with the very bytes that are stored. */
export async function readRecordDocument(
  repository: Repository,
  publicKey: string,
  at: RecordAt,
  signal: AbortSignal,
): Promise<{ record: CommitRecord; document: Buffer }> {
  const what = `record ${at.backupId} in ${repository.name}`
  const bytes = await repository.store.get(at.name, { signal, maxBytes: MAX_BYTES.record })
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
  return { record, document: bytes }
}

export interface BackupPage {
  readonly cluster?: string | undefined
  readonly limit: number
  /** `next` of the page before this one. */
  readonly before?: string | undefined
}

/**
 * Backups of a repository, newest first. A record that is not to be trusted is listed as such, never hidden.
 *
 * Costs the listing pages and one read for each backup that is given.
 */
export async function listBackups(
  repository: Repository,
  publicKey: string,
  { cluster, limit, before }: BackupPage,
  signal: AbortSignal,
): Promise<{ backups: ListedBackup[]; next: string | undefined }> {
  const names = await newestRecordNames(repository, cluster, { limit: limit + 1, before }, signal)
  const backups: ListedBackup[] = []
  for (const at of names.slice(0, limit)) backups.push(await readListed(repository, publicKey, at, signal))
  const last = backups.at(-1)
  return { backups, next: names.length > limit && last !== undefined ? cursorOf(last) : undefined }
}

/** One backup of a list. @throws what keeps it from looking, and nothing that the record itself is at fault for. */
export async function readListed(
  repository: Repository,
  publicKey: string,
  at: RecordName,
  signal: AbortSignal,
): Promise<ListedBackup> {
  try {
    return { ...at, record: await readRecord(repository, publicKey, at, signal) }
  } catch (error) {
    const untrusted = problemOf(error)
    if (untrusted.retry !== 'never') throw error
    return { ...at, untrusted }
  }
}

/** Where a record lies, by what it says. */
export function recordAt({ cluster, systemId, backupId, stoppedAt }: CommitRecord): RecordAt {
  const stopped = new Date(stoppedAt)
  const name = new ClusterLayout(cluster, systemId).record(stopped, backupId)
  return { name, cluster, systemId, backupId, stoppedAt: compactTime(stopped) }
}

export interface FoundBackup {
  readonly repository: Repository
  readonly record: CommitRecord
}

/** Clusters that have a record. */
export async function clustersOf(repository: Repository, signal: AbortSignal): Promise<string[]> {
  const clusters: string[] = []
  for await (const folder of folders(repository, CLUSTERS, signal)) {
    const cluster = folder.slice(CLUSTERS.length, -1)
    for await (const _first of listRecordNames(repository, cluster, signal)) {
      clusters.push(cluster)
      break
    }
  }
  return clusters
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
  const what = `pack table of backup ${record.backupId} in ${repository.name}`
  const { bytes, sha256 } = record.packTable
  const decoder = new PackTableDecoder(what)
  const hash = createHash('sha256')
  let unread: { readonly error: unknown } | undefined
  try {
    // One byte more than there should be, so that a longer one is noticed.
    for await (const piece of readPieces(repository.store, name, bytes + 1, signal)) {
      hash.update(piece)
      if (unread !== undefined) continue
      try {
        decoder.write(piece)
      } catch (error) {
        // Whether it is the recorded table at all is the first question.
        unread = { error }
      }
    }
  } catch (error) {
    if (error instanceof ObjectNotFoundError)
      throw new BackupIncompleteError(record.backupId, `its pack table in ${repository.name}`, error)
    throw error
  }
  if (hash.digest('hex') !== sha256) throw new DocumentDamagedError(what, 'its SHA-256 is not the recorded one')
  if (unread !== undefined) throw unread.error
  const table = decoder.end()
  if (table.backupId !== record.backupId) throw new DocumentDamagedError(what, 'it is of another backup')
  return table
}
