/** Finds out whether a restore can succeed, before it copies anything. */
import { stat } from 'node:fs/promises'
import { dirname, isAbsolute, normalize } from 'node:path'
import { KeyMissingError, type Keyring } from '@tidemark/crypto'
import { type Clock, type Logger, OperationalError } from '@tidemark/kernel'
import { parseTablespaceMap } from '@tidemark/postgres'
import {
  BackupIncompleteError,
  BackupNotFoundError,
  ClusterLayout,
  type CommitRecord,
  type PackTable,
  type Repository,
  type RepositorySet,
  type SourceDocument,
  UNREAD_TABLESPACE_WAL,
  compareListing,
  findBackup,
  readPackTable,
  readSource,
} from '@tidemark/repository'
import {
  BackupDamagedError,
  DiskSpaceError,
  RestoreUnsupportedError,
  TargetNotResumableError,
  TargetUnusableError,
} from '../errors.ts'
import { type Estimate, estimateDuration } from './estimate-duration.ts'
import { BackupReader, checkPack } from './fetch-pack.ts'
import { Rereads } from './rereads.ts'
import type { Place } from './directory-identity.ts'
import { type HostFacts, checkHost } from './host-checks.ts'
import { type PlannedTablespace, type TablespaceMapping, planTablespaces } from './plan-tablespaces.ts'
import { type RestoreProfile, keptLibraries } from './recovery-config.ts'
import { type SurveyedFiles, surveyFiles } from './survey-files.ts'
import { type Owner, type TargetFacts, type TargetMode, freeBytesOf, inspectTarget } from './target-facts.ts'
import { spaceTaken } from './space-taken.ts'

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
  /** Default 'new': an empty directory. */
  readonly mode?: TargetMode
  /** A restore into an empty directory that fails takes away what it has written, instead of keeping it for `resume`. */
  readonly discardOnFailure?: boolean
  readonly tablespaceMappings?: readonly TablespaceMapping[]
  readonly tablespaceRoot?: string
  /** 'captured': configuration files from outside of the source's data directory are laid beside, for production. */
  readonly configuration?: 'stand-in' | 'captured'
}

/** What one file system has to take. */
export interface DiskNeed {
  /** Directories of this restore on it. */
  readonly paths: readonly string[]
  readonly needBytes: number
  readonly freeBytes: number
}

export interface RestorePlan {
  readonly request: RestoreRequest
  readonly mode: TargetMode
  readonly record: CommitRecord
  readonly table: PackTable
  readonly source: SourceDocument
  /** Where to read, in this order; the first one holds everything. */
  readonly sources: readonly Repository[]
  /** Of the target. */
  readonly place: Place
  readonly tablespaces: readonly PlannedTablespace[]
  /** Bytes to be fetched at most, WAL not counted. */
  readonly fetchBytes: number
  readonly disks: readonly DiskNeed[]
  readonly estimate: Estimate | undefined
  readonly host: HostFacts
  readonly owner: Owner | undefined
}

export interface PlanDeps {
  readonly set: RepositorySet
  /** Absent: planned without keys, and the plan says only what records tell. */
  readonly keyring: Keyring | undefined
  readonly logger: Logger
  readonly signal: AbortSignal
  /** To be asked how long it will take: a pack is fetched to find out. */
  readonly estimate?: { readonly clock: Clock; readonly threads: number }
}

/** sun_path has 108 bytes with its end; the socket is called .s.PGSQL.65535 at the longest. */
const LONGEST_SOCKET_FOLDER = 107 - '/.s.PGSQL.65535'.length
/** What a file takes on disk beside its bytes: an inode, and half a block at its end. */
const BYTES_PER_FILE = 4096

/**
 * @throws {BackupNotFoundError} @throws {BackupDamagedError} @throws {BackupIncompleteError} no repository holds all of it.
 * @throws {TargetNotEmptyError} @throws {TargetUnusableError} @throws {TargetInUseError} @throws {TargetNotResumableError} @throws {DiskSpaceError}
 * @throws {TablespaceLocationError} @throws {TablespaceMappingError} @throws {UnknownDataKeyError} @throws {KeyMissingError}
 */
export async function planRestore(request: RestoreRequest, deps: PlanDeps): Promise<RestorePlan> {
  const { targetDirectory } = request
  const mode = request.mode ?? 'new'
  checkPath(request)
  const candidates = deps.set.repositories.filter(
    ({ name }) => request.repository === undefined || name === request.repository,
  )
  const { record, table, sources } = await findComplete(request, candidates, deps)
  if (record.verdict === 'damaged' && !request.allowDamaged)
    throw new BackupDamagedError(record.backupId, record.damage)
  const { keyring } = deps
  if (keyring === undefined) throw new KeyMissingError('a restore')
  for (const id of record.dataKeys) keyring.dataKey(id)
  const reader = new BackupReader({ record, table, sources }, deps.logger)
  const source = await reader.fromAny(deps.signal, (from) =>
    readSource(from, record, table, keyring.dataKey, deps.signal),
  )
  const target = await inspectTarget(targetDirectory, request.owner, mode)
  checkMarker(request, mode, target, record)
  const { tablespaces, surveyed } = await tablespacesOf(request, reader, source, target, keyring, deps)
  const disks = await disksOf(request, record, table, tablespaces, surveyed, target)
  for (const { paths, needBytes, freeBytes } of disks)
    if (freeBytes < needBytes) throw new DiskSpaceError(paths[0] ?? targetDirectory, needBytes, freeBytes)
  const { own, shared } = table.packs.bytes
  const fetchBytes = table.fileList.reduce((sum, { bytes }) => sum + bytes, own + shared)
  const estimate =
    deps.estimate === undefined
      ? undefined
      : await estimateDuration(reader, fetchBytes, { ...deps.estimate, signal: deps.signal })
  const host = await checkHost(record, source, keptLibraries(request.profile, record))
  for (const { check, message } of host.findings)
    deps.logger.warn({ check, reason: message }, 'restore preflight warning')
  const { seen, above, owner } = target
  const place = { seen, above }
  return { request, mode, record, table, source, sources, place, tablespaces, fetchBytes, disks, estimate, host, owner }
}

function checkPath({ targetDirectory, profile, configuration }: RestoreRequest): void {
  if (profile === 'clone' && configuration === 'captured') {
    throw new TargetUnusableError(
      targetDirectory,
      "a clone takes nothing of its source's configuration",
      'captured configuration goes with --as-production; `tidemark restore plan --json` lists what there is',
    )
  }
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
  if (profile === 'clone' && Buffer.byteLength(targetDirectory) > LONGEST_SOCKET_FOLDER) {
    throw new TargetUnusableError(
      targetDirectory,
      `its path is longer than ${LONGEST_SOCKET_FOLDER} bytes, and a clone's socket lies in it`,
      'name a shorter path (sockets have at most 107 bytes)',
    )
  }
}

function checkMarker(
  { targetDirectory, profile, configuration = 'stand-in' }: RestoreRequest,
  mode: TargetMode,
  { marker }: TargetFacts,
  record: CommitRecord,
): void {
  if (mode === 'resume' && marker?.backupId !== record.backupId)
    throw new TargetNotResumableError(targetDirectory, mode, `the restore in it is of backup ${marker?.backupId ?? ''}`)
  // Its server may have run: it is finished as it was begun, or not at all.
  if (mode === 'resume' && marker?.ready === true) {
    const begun = { profile: marker.profile, configuration: marker.configuration ?? 'stand-in' }
    if (begun.profile !== profile || begun.configuration !== configuration)
      throw new TargetNotResumableError(
        targetDirectory,
        mode,
        `the restore in it has everything, as ${begun.profile} with ${begun.configuration} configuration: resume it as that, then restore a delta`,
      )
  }
  if (mode === 'delta' && marker?.systemId !== record.systemId)
    throw new TargetNotResumableError(
      targetDirectory,
      mode,
      `what is in it is of database system ${marker?.systemId ?? ''}`,
    )
}

async function tablespacesOf(
  request: RestoreRequest,
  reader: BackupReader,
  source: SourceDocument,
  target: TargetFacts,
  keyring: Keyring,
  deps: PlanDeps,
): Promise<{ tablespaces: PlannedTablespace[]; surveyed: SurveyedFiles | undefined }> {
  const { record } = reader
  const oids = record.server.tablespaceOids
  const any = oids.length + source.tablespaces.length > 0
  const surveyed = any ? await surveyFiles(reader, keyring, deps.signal) : undefined
  const mapped = surveyed === undefined ? [] : parseTablespaceMap(surveyed.tablespaceMap.toString('utf8'))
  const { targetDirectory, tablespaceMappings = [], tablespaceRoot } = request
  const tablespaces = await planTablespaces(
    { oids, source, mapped },
    { targetDirectory, tablespaceMappings, tablespaceRoot },
    target.marker,
    target.owner,
  )
  // PostgreSQL 15 leaves them out of a base backup and of its manifest (sendDir, basebackup.c); later ones send them.
  const unscanned = source.unread.find(({ what }) => what === UNREAD_TABLESPACE_WAL)
  if (unscanned !== undefined && !request.allowDamaged) {
    throw new RestoreUnsupportedError(
      record.backupId,
      `WAL that was not searched for tablespaces: ${unscanned.reason}`,
      'its replay may make one at a path that is used on this host: restore another backup, or, on a host without any of the source’s paths, with --allow-damaged',
    )
  }
  // One that was made while the backup ran is made again by its WAL.
  const older = new Set(source.tablespaces.filter(({ seen }) => seen.includes('before')).map(({ oid }) => oid))
  const unsent = tablespaces.find(
    ({ oid, kind }) => kind === 'in-place' && older.has(oid) && surveyed?.files.get(oid) === undefined,
  )
  if (unsent !== undefined && !request.allowDamaged) {
    throw new RestoreUnsupportedError(
      record.backupId,
      `an in-place tablespace, ${unsent.name ?? unsent.oid}, whose files the server did not send`,
      'if it held nothing, or to save what else there is, restore with --allow-damaged; move its tables elsewhere on the source and take a new backup',
    )
  }
  return { tablespaces, surveyed }
}

/** By file system, since two directories may share one. */
async function disksOf(
  { targetDirectory }: RestoreRequest,
  record: CommitRecord,
  table: PackTable,
  tablespaces: readonly PlannedTablespace[],
  surveyed: SurveyedFiles | undefined,
  target: TargetFacts,
): Promise<DiskNeed[]> {
  const { totals, server } = record
  const needs: { path: string; needBytes: number }[] = []
  let [elsewhereBytes, elsewhereFiles] = [0, 0]
  for (const { oid, kind, target: place } of tablespaces) {
    if (place === undefined) continue
    const bytes = kind === 'copied' ? (surveyed?.bytes.get(oid) ?? 0) : 0
    const files = kind === 'copied' ? (surveyed?.files.get(oid) ?? 0) : 0
    elsewhereBytes += bytes
    elsewhereFiles += files
    needs.push({ path: place.path, needBytes: bytes + files * BYTES_PER_FILE })
  }
  const files = totals.files - elsewhereFiles
  const own = totals.bytes - elsewhereBytes + (table.wal.length + 2) * server.walSegmentBytes + files * BYTES_PER_FILE
  needs.unshift({ path: targetDirectory, needBytes: own })
  const byDevice = new Map<number, { paths: string[]; needBytes: number; freeBytes: number }>()
  for (const { path, needBytes } of needs) {
    const there = await nearest(path)
    // What an earlier restore has written there is written over.
    const taken = target.marker === undefined ? 0 : await spaceTaken(path)
    const { dev } = await stat(there)
    const disk = byDevice.get(dev) ?? { paths: [], needBytes: 0, freeBytes: await freeBytesOf(there) }
    disk.paths.push(path)
    disk.needBytes += Math.max(0, needBytes - taken)
    byDevice.set(dev, disk)
  }
  return [...byDevice.values()]
}

async function nearest(path: string): Promise<string> {
  return stat(path).then(
    () => path,
    () => (dirname(path) === path ? path : nearest(dirname(path))),
  )
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
      const { record } =
        repository.name === chosen.repository.name
          ? chosen
          : await findBackup(deps.set, [repository], wanted, request.cluster, deps.signal)
      const table = await readPackTable(repository, record, deps.signal)
      await checkObjects(repository, record, table, deps)
      found.push({ repository, record, table })
      break
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
  { logger, signal }: PlanDeps,
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
  const rereads = new Rereads(logger)
  for (const part of table.fileList)
    await rereads.once(repository, signal, () => checkPack(repository, base + part.name, part, record.backupId, signal))
}
