/** Finds out whether a restore can succeed, before it copies anything. */
import { isAbsolute, normalize } from 'node:path'
import { KeyMissingError, type Keyring } from '@tidemark/crypto'
import { type Logger, OperationalError } from '@tidemark/kernel'
import {
  BackupIncompleteError,
  BackupNotFoundError,
  ClusterLayout,
  type CommitRecord,
  type PackTable,
  type Repository,
  type RepositorySet,
  compareListing,
  findBackup,
  readPackTable,
} from '@tidemark/repository'
import { BackupDamagedError, DiskSpaceError, RestoreUnsupportedError, TargetUnusableError } from '../errors.ts'
import type { RestoreProfile } from './recovery-config.ts'
import { readPack } from './fetch-pack.ts'
import { type Owner, inspectTarget } from './target-directory.ts'

export interface RestoreRequest {
  /** An id, the unique beginning of one, or `latest`. */
  readonly backup: string
  readonly cluster: string | undefined
  /** Only this repository; else all of the set, the given order. */
  readonly repository: string | undefined
  /** Absolute. */
  readonly targetDirectory: string
  readonly profile: RestoreProfile
  /** For a process that runs as root. */
  readonly owner: Owner | undefined
  readonly allowDamaged: boolean
}

export interface RestorePlan {
  readonly request: RestoreRequest
  readonly record: CommitRecord
  readonly table: PackTable
  /** Where to read, in this order; the first one holds everything. */
  readonly sources: readonly Repository[]
  /** Bytes to be fetched, WAL not counted. */
  readonly fetchBytes: number
  readonly diskNeedBytes: number
  readonly diskFreeBytes: number
  readonly owner: Owner | undefined
}

export interface PlanDeps {
  readonly set: RepositorySet
  /** Absent: planned without keys, and the plan says only what records tell. */
  readonly keyring: Keyring | undefined
  readonly logger: Logger
  readonly signal: AbortSignal
}

/** sun_path has 108 bytes with its end; the socket is called .s.PGSQL.65535 at the longest. */
const LONGEST_SOCKET_FOLDER = 107 - '/.s.PGSQL.65535'.length

/**
 * @throws {BackupNotFoundError} @throws {BackupDamagedError} @throws {BackupIncompleteError} no repository holds all of it.
 * @throws {TargetNotEmptyError} @throws {TargetUnusableError} @throws {DiskSpaceError} @throws {UnknownDataKeyError} @throws {KeyMissingError}
 */
export async function planRestore(request: RestoreRequest, deps: PlanDeps): Promise<RestorePlan> {
  const { targetDirectory } = request
  if (
    !isAbsolute(targetDirectory) ||
    normalize(targetDirectory) !== targetDirectory ||
    /[\n\r\0]/.test(targetDirectory)
  ) {
    throw new TargetUnusableError(
      targetDirectory,
      'it is no absolute, normalised path',
      'give the full path, without .. and without a trailing slash',
    )
  }
  if (request.profile === 'clone' && Buffer.byteLength(targetDirectory) > LONGEST_SOCKET_FOLDER) {
    throw new TargetUnusableError(
      targetDirectory,
      `its path is longer than ${LONGEST_SOCKET_FOLDER} bytes, and a clone's socket lies in it`,
      'name a shorter path (sockets have at most 107 bytes)',
    )
  }
  const candidates = deps.set.repositories.filter(
    ({ name }) => request.repository === undefined || name === request.repository,
  )
  const { record, table, sources } = await findComplete(request, candidates, deps)
  if (record.verdict === 'damaged' && !request.allowDamaged)
    throw new BackupDamagedError(record.backupId, record.damage)
  if (record.server.tablespaceOids.length > 0) {
    throw new RestoreUnsupportedError(
      record.backupId,
      `${record.server.tablespaceOids.length} tablespaces outside of the data directory`,
      'their files are in the backup and are safe; putting them elsewhere on the target needs a release with tablespace remapping',
    )
  }
  if (deps.keyring === undefined) throw new KeyMissingError('a restore')
  for (const id of record.dataKeys) deps.keyring.dataKey(id)
  const target = await inspectTarget(targetDirectory, request.owner)
  const diskNeedBytes =
    record.totals.bytes + (table.wal.length + 2) * record.server.walSegmentBytes + record.totals.files * 4096
  if (target.freeBytes < diskNeedBytes) throw new DiskSpaceError(targetDirectory, diskNeedBytes, target.freeBytes)
  const { own, shared } = table.packs.bytes
  const fetchBytes = table.fileList.reduce((sum, { bytes }) => sum + bytes, own + shared)
  return {
    request,
    record,
    table,
    sources,
    fetchBytes,
    diskNeedBytes,
    diskFreeBytes: target.freeBytes,
    owner: target.owner,
  }
}

/**
 * The backup in the first repository that has every object of it; the others stay as second sources.
 *
 * A pack may be damaged here and be taken from a second source later. The file list is read from one place only, so it is read now.
 */
async function findComplete(
  request: RestoreRequest,
  candidates: readonly Repository[],
  deps: PlanDeps,
): Promise<{ record: CommitRecord; table: PackTable; sources: Repository[] }> {
  let first: OperationalError | undefined
  const found: { repository: Repository; record: CommitRecord; table: PackTable }[] = []
  // 'latest' and a short id mean one backup for the whole restore, wherever its parts are read.
  const chosen = await findBackup(deps.set, candidates, request.backup, request.cluster, deps.signal)
  const wanted = chosen.record.backupId
  for (const repository of candidates) {
    try {
      const { record } = await findBackup(deps.set, [repository], wanted, request.cluster, deps.signal)
      const table = await readPackTable(repository, record, deps.signal)
      await checkObjects(repository, record, table, deps.signal)
      found.push({ repository, record, table })
    } catch (error) {
      if (deps.signal.aborted || !(error instanceof OperationalError)) throw error
      if (first === undefined || first instanceof BackupNotFoundError) first = error
      deps.logger.warn({ repository: repository.name, code: error.code }, 'backup not usable from this repository')
    }
  }
  const [best] = found
  if (best === undefined) throw first ?? new BackupNotFoundError(request.backup, request.cluster)
  const others = candidates.filter(({ name }) => name !== best.repository.name)
  return { record: best.record, table: best.table, sources: [best.repository, ...others] }
}

async function checkObjects(
  repository: Repository,
  record: CommitRecord,
  table: PackTable,
  signal: AbortSignal,
): Promise<void> {
  const layout = new ClusterLayout(record.cluster, record.systemId)
  const base = layout.base(record.backupId)
  const { missing } = await compareListing(repository, layout, table, undefined, signal)
  const [first] = missing
  if (first !== undefined) {
    const more = missing.length > 1 ? ` and ${missing.length - 1} more objects` : ''
    throw new BackupIncompleteError(
      record.backupId,
      `${first}${more} in ${repository.name} (missing, or of another size)`,
    )
  }
  for (const part of table.fileList) await readPack(repository, base + part.name, part, record.backupId, signal)
}
