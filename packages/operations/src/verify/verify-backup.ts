/**
 * Verifies a backup where it lies, one repository after the other.
 *
 * Level `packs` needs no key: every object of the pack table is fetched and its SHA-256 compared, the WAL is there. Level
 * `contents` also opens every frame and holds every file against PostgreSQL's own manifest, which proves what a restore would write.
 * Damage is reported, not thrown: the outcome says what is wrong. Only what keeps it from looking (no key, no answer) throws.
 */
import { KeyMissingError, type Keyring } from '@tidemark/crypto'
import { type Logger, OperationalError, type ReportProgress, throwIfAborted } from '@tidemark/kernel'
import {
  BackupNotFoundError,
  ClusterLayout,
  type CommitRecord,
  type PackEntry,
  type PackTable,
  type Repository,
  type RepositorySet,
  WalLayout,
  findBackup,
  missingWal,
  readPackTable,
  readSource,
  readTimelineHistory,
  readWalSegment,
} from '@tidemark/repository'
import { checkPack } from '../restore/fetch-pack.ts'
import { Rereads } from '../restore/rereads.ts'
import { runBounded } from '../threads/run-bounded.ts'
import { verifyFiles } from './verify-files.ts'

export type VerifyLevel = 'packs' | 'contents'

export interface VerifyRequest {
  readonly backup: string
  readonly cluster: string | undefined
  /** Only this one; else every repository of the set that holds the backup. */
  readonly repository: string | undefined
  readonly level: VerifyLevel
}

export interface VerifyDeps {
  readonly set: RepositorySet
  readonly keyring: Keyring | undefined
  readonly threads: number
  readonly logger: Logger
  readonly signal: AbortSignal
  readonly progress: ReportProgress
}

export interface RepositoryVerdict {
  readonly name: string
  readonly packs: number
  /** Stored bytes that were read and compared. */
  readonly bytes: number
  /** Files held against the manifest; 0 at level `packs`. */
  readonly files: number
  /** Objects, or parts of them, that came damaged at first and were read again. */
  readonly rereads: number
  readonly ok: boolean
  /** For people, at most 50. */
  readonly problems: readonly string[]
}

export interface VerifyOutcome {
  readonly backupId: string
  readonly cluster: string
  readonly level: VerifyLevel
  readonly repositories: readonly RepositoryVerdict[]
}

const MAX_PROBLEMS = 50
const FETCHES_AT_ONCE = 2

/** @throws {BackupNotFoundError} @throws {KeyMissingError} @throws {StoreUnavailableError} @throws {SignatureRefusedError} the record itself. */
export async function verifyBackup(request: VerifyRequest, deps: VerifyDeps): Promise<VerifyOutcome> {
  if (request.level === 'contents' && deps.keyring === undefined) throw new KeyMissingError('verifying contents')
  const candidates = deps.set.repositories.filter(
    ({ name }) => request.repository === undefined || name === request.repository,
  )
  const { record } = await findBackup(deps.set, candidates, request.backup, request.cluster, deps.signal)
  const verdicts: RepositoryVerdict[] = []
  for (const repository of candidates) {
    const verdict = await verifyIn(repository, record, request.level, deps)
    if (verdict !== undefined) verdicts.push(verdict)
  }
  return { backupId: record.backupId, cluster: record.cluster, level: request.level, repositories: verdicts }
}

async function verifyIn(
  repository: Repository,
  record: CommitRecord,
  level: VerifyLevel,
  deps: VerifyDeps,
): Promise<RepositoryVerdict | undefined> {
  const problems: string[] = []
  const report = (problem: string): void => {
    if (problems.length < MAX_PROBLEMS) problems.push(problem)
  }
  let bytes = 0
  let files = 0
  let packs = 0
  const rereads = new Rereads(deps.logger)
  await noting(report, deps.signal, async () => {
    try {
      await findBackup(deps.set, [repository], record.backupId, record.cluster, deps.signal)
    } catch (error) {
      if (error instanceof BackupNotFoundError) return
      throw error
    }
    const table = await readPackTable(repository, record, deps.signal)
    packs = table.packs.length
    const layout = new ClusterLayout(record.cluster, record.systemId)
    const missing = await missingWal(repository, layout, table, deps.signal)
    for (const name of missing) report(`${name} is missing`)
    bytes = await verifyObjects(repository, record, table, level, report, rereads, deps)
    const { keyring } = deps
    if (level === 'packs' || keyring === undefined) return
    // Frames are read from packs whose SHA-256 is right: what a bad pack holds is not worth a second report.
    if (problems.length === 0)
      await noting(report, deps.signal, async () => {
        files = await verifyFiles(repository, record, table, { ...deps, keyring, rereads }, report)
      })
    await noting(report, deps.signal, async () => {
      const read = (): Promise<unknown> => readSource(repository, record, table, keyring.dataKey, deps.signal)
      await rereads.once(repository, deps.signal, read)
    })
    await verifyWal(repository, record, table, keyring, report, rereads, deps.signal)
  })
  if (packs === 0 && problems.length === 0) return undefined
  return { name: repository.name, packs, bytes, files, rereads: rereads.count, ok: problems.length === 0, problems }
}

/** Level `packs` reads everything here; level `contents` only the file list and the source document, since it reads the packs anyway. */
async function verifyObjects(
  repository: Repository,
  record: CommitRecord,
  table: PackTable,
  level: VerifyLevel,
  report: (problem: string) => void,
  rereads: Rereads,
  deps: VerifyDeps,
): Promise<number> {
  const layout = new ClusterLayout(record.cluster, record.systemId)
  const small = [...table.fileList, table.source]
  const { own, shared } = table.packs.bytes
  const packBytes = own + shared
  const bytesTotal = small.reduce((sum, object) => sum + object.bytes, level === 'packs' ? packBytes : 0)
  let bytesDone = 0
  await runBounded(objectsOf(table, level), FETCHES_AT_ONCE, deps.signal, async (object, signal) => {
    const folder = object.backup ?? record.backupId
    await noting(report, signal, async () => {
      const name = layout.base(folder) + object.name
      await rereads.once(repository, signal, () => checkPack(repository, name, object, record.backupId, signal))
    })
    bytesDone += object.bytes
    if (level === 'packs') deps.progress({ phase: `packs of ${repository.name}`, bytesDone, bytesTotal })
  })
  return level === 'packs' ? bytesDone : bytesDone + packBytes
}

function* objectsOf(table: PackTable, level: VerifyLevel): Generator<PackEntry> {
  if (level === 'packs') yield* table.packs
  yield* table.fileList
  yield table.source
}

async function verifyWal(
  repository: Repository,
  record: CommitRecord,
  table: PackTable,
  keyring: Keyring,
  report: (problem: string) => void,
  rereads: Rereads,
  signal: AbortSignal,
): Promise<void> {
  const wal = new WalLayout(record.cluster, record.systemId)
  for (const name of table.wal) {
    throwIfAborted(signal, 'the verification')
    await noting(report, signal, async () => {
      const { walSegmentBytes } = record.server
      const read = (): Promise<unknown> => readWalSegment(repository, wal, name, walSegmentBytes, keyring, signal)
      await rereads.once(repository, signal, read)
    })
  }
  for (const name of table.history) {
    await noting(report, signal, async () => {
      await rereads.once(repository, signal, () => readTimelineHistory(repository, wal, name, keyring, signal))
    })
  }
}

/** Runs a check; damage becomes a problem, anything that may pass or needs an operator is thrown on. */
async function noting(
  report: (problem: string) => void,
  signal: AbortSignal,
  check: () => Promise<void>,
): Promise<void> {
  try {
    await check()
  } catch (error) {
    if (signal.aborted || !(error instanceof OperationalError) || error.retry !== 'never') throw error
    report(`${error.code}: ${error.message}`)
  }
}
