/**
 * Takes one base backup of a cluster into a repository set, over the replication protocol.
 *
 * Order: preflight → load-limiting lock → begin objects, adoption → WAL stream over a temporary slot → BASE_BACKUP, its tar cut into packs, WAL segments beside
 * it → WAL up to the stop LSN → commit records. Whatever fails before the records leaves nothing that is listed.
 *
 * Memory: base of the process + packBufferBytes × (threads + uploads) + 1 MiB × (3 × threads + 2) + 4 WAL segments, for any
 * size of database.
 */
import {
  type Clock,
  type Logger,
  type Progress,
  type ReportProgress,
  abortError,
  segmentNumber,
  segmentStart,
} from '@tidemark/kernel'
import {
  type BackupFile,
  type BaseBackupSink,
  type BaseBackupStart,
  type ConnectionTarget,
  type BackupTablespace,
  type ServerFacts,
  ServerMismatchError,
  TablespaceWatch,
  type WalStream,
  connect,
  openWalStream,
  preflight,
  runBaseBackup,
} from '@tidemark/postgres'
import {
  BackupWriter,
  type Committed,
  type OpenedKeys,
  type RepositorySet,
  type SealingSettings,
} from '@tidemark/repository'
import { ClusterBusyError } from '../errors.ts'
import { type BackupHooks, withHooks } from './backup-hooks.ts'
import type { ServerPatience } from '../patience.ts'
import { findCommitted } from './find-committed.ts'
import { recordedServer } from './recorded-server.ts'
import { outsideTablespaces, sourceFacts } from './source-facts.ts'

export interface BackupRequest {
  readonly cluster: string
  readonly target: ConnectionTarget
  /** One operation makes one backup, however often it is tried: a backup that it committed earlier is returned. */
  readonly operationId: string
  readonly requestedAt: Date
  readonly checkpoint: 'fast' | 'spread'
  readonly maxRateKiB: number | undefined
  readonly label: string | undefined
  readonly sealing: SealingSettings
  readonly hooks?: BackupHooks | undefined
  /** Its `connectTimeoutMs` is the target's own. */
  readonly patience?: Omit<ServerPatience, 'connectTimeoutMs'> | undefined
}

export interface BackupDeps {
  readonly set: RepositorySet
  readonly keys: OpenedKeys
  readonly clock: Clock
  readonly logger: Logger
  readonly signal: AbortSignal
  readonly progress: ReportProgress
  readonly writerVersion: string
}

/** First key of the advisory lock; the second is a hash of nothing but the database system it is taken in. */
const LOCK_SPACE = 0x7469_6465
const LOCK_BASE_BACKUP = 1

/**
 * @throws {PreflightFailedError} with every failing check. @throws {ClusterBusyError} @throws {HookFailedError} @throws {ServerMismatchError} @throws {ConnectionLostError} and others of the postgres package.
 * @throws {RequiredRepositoryError} @throws {FolderMismatchError} @throws {LeaseLostError} @throws {WalSegmentConflictError}
 */
export async function takeBaseBackup(request: BackupRequest, deps: BackupDeps): Promise<Committed> {
  const { cluster, target, operationId } = request
  const { logger } = deps
  const earlier = await findCommitted(deps.set, request, deps.signal)
  if (earlier !== undefined) {
    logger.info({ operationId, backupId: earlier.record.backupId }, 'this operation had committed its backup before')
    return earlier
  }
  deps.progress({ phase: 'preflight', bytesDone: 0 })
  const facts = await preflight(target, { needWal: true }, deps.signal)
  for (const { check, message } of facts.warnings) logger.warn({ cluster, check, reason: message }, 'preflight warning')
  await using lock = await connect(target, deps.signal)
  const [row] = await lock.query<{ locked: boolean; system_id: string }>(
    'SELECT pg_try_advisory_lock($1, $2) AS locked, system_identifier::text AS system_id FROM pg_control_system()',
    [LOCK_SPACE, LOCK_BASE_BACKUP],
  )
  if (row?.system_id !== facts.systemId) throw mismatch(target, facts.systemId, row?.system_id)
  if (!row.locked) throw new ClusterBusyError(cluster)
  // Another worker with the same operation may have committed, and let the lock go, since the first look.
  const meanwhile = await findCommitted(deps.set, request, deps.signal)
  if (meanwhile !== undefined) return meanwhile
  return await withHooks(request.hooks, request, deps, (onBackupId) => copyAndCommit(request, deps, facts, onBackupId))
}

async function copyAndCommit(
  request: BackupRequest,
  deps: BackupDeps,
  facts: ServerFacts,
  onBackupId: (backupId: string) => void,
): Promise<Committed> {
  const { cluster, target, operationId } = request
  const { logger } = deps

  // One signal for everything that runs beside the copy: whichever part breaks stops the others, with its own error.
  const stop = new AbortController()
  const signal = AbortSignal.any([deps.signal, stop.signal])
  // Adopting what a dead attempt left can take long: no slot holds back the server's WAL meanwhile.
  await using writer = await BackupWriter.begin(
    deps.set,
    deps.keys,
    { cluster, systemId: facts.systemId, operationId, sealing: request.sealing, writerVersion: deps.writerVersion },
    { clock: deps.clock, logger, signal },
  )
  onBackupId(writer.backupId)
  await using wal = await openWalStream(target, signal, { ...request.patience, systemId: facts.systemId })
  logger.info({ cluster, operationId, backupId: writer.backupId, systemId: facts.systemId }, 'base backup begun')
  // Settles only once the stream was started: nobody waits for it.
  void wal.finished.catch((error: unknown) => stop.abort(error))
  try {
    const sink = new BackupSink(writer, wal, facts, deps.progress)
    const end = await runBaseBackup(
      target,
      {
        label: request.label ?? `tidemark ${writer.backupId}`,
        systemId: facts.systemId,
        checkpoint: request.checkpoint,
        maxRateKiB: request.maxRateKiB,
        idleTimeoutMs: request.patience?.idleTimeoutMs,
      },
      sink,
      signal,
    )
    const stoppedAt = deps.clock.now()
    await sink.endManifest()
    deps.progress({
      phase: 'wal',
      bytesDone: sink.bytesDone,
      bytesTotal: sink.bytesDone,
      bytesStored: writer.storedBytes,
    })
    await wal.finishAt(end.stopLsn)
    deps.progress({
      phase: 'commit',
      bytesDone: sink.bytesDone,
      bytesTotal: sink.bytesDone,
      bytesStored: writer.storedBytes,
    })
    const source = await sourceFacts(target, facts, { ...end, ...sink.seen }, { logger, signal })
    const damaged = end.kind === 'damaged'
    const committed = await writer.commit({
      timeline: end.timeline,
      startLsn: end.startLsn,
      stopLsn: end.stopLsn,
      verdict: damaged ? 'damaged' : 'intact',
      damage: damaged
        ? [end.checksumFailure, ...end.notices].flatMap((notice) => (notice === undefined ? [] : [notice.message]))
        : [],
      server: recordedServer(facts, outsideTablespaces(source.tablespaces)),
      source,
      skipped: end.skippedCount,
      stoppedAt,
    })
    logger.info(
      {
        cluster,
        operationId,
        backupId: writer.backupId,
        verdict: committed.record.verdict,
        ...committed.record.totals,
      },
      'base backup committed',
    )
    if (damaged) {
      const { damage } = committed.record
      logger.error(
        { event: 'backup-damaged', cluster, operationId, backupId: writer.backupId, damage: damage.slice(0, 100) },
        'the server has pages with wrong checksums: this backup is no restorable point',
      )
    }
    return committed
  } catch (error) {
    // What broke first is the reason; the rest is its consequence.
    if (stop.signal.aborted) throw stop.signal.reason
    throw error
  } finally {
    stop.abort(abortError(AbortSignal.abort(), 'the base backup'))
  }
}

function mismatch({ host, port }: ConnectionTarget, expected: string, found = 'none'): ServerMismatchError {
  const during = "the backup's lock"
  return new ServerMismatchError({ host, port, during, expected: `system ${expected}`, found: `system ${found}` })
}

/** Hands what the server sends to the writer, and starts the WAL stream once the start LSN is known. */
class BackupSink implements BaseBackupSink {
  readonly #writer: BackupWriter
  readonly #wal: WalStream
  readonly #facts: ServerFacts
  readonly #report: ReportProgress
  #manifestOpen = false
  #tablespaces: readonly BackupTablespace[] = []
  #watch: TablespaceWatch | undefined
  bytesDone = 0

  constructor(writer: BackupWriter, wal: WalStream, facts: ServerFacts, report: ReportProgress) {
    this.#writer = writer
    this.#wal = wal
    this.#facts = facts
    this.#report = report
  }

  /** Tablespaces as the copy and its WAL tell of them. */
  get seen(): { tablespaces: readonly BackupTablespace[]; wal: TablespaceWatch } {
    if (this.#watch === undefined) throw new RangeError('the copy has not begun')
    return { tablespaces: this.#tablespaces, wal: this.#watch }
  }

  async onStart({ startLsn, timeline, tablespaces }: BaseBackupStart): Promise<void> {
    this.#tablespaces = tablespaces
    const { walSegmentBytes } = this.#facts
    const fromSegment = segmentNumber(startLsn, walSegmentBytes)
    const watch = new TablespaceWatch({ walSegmentBytes, fromSegment, timeline })
    this.#watch = watch
    this.#writer.setStart(startLsn)
    if (timeline > 1) {
      const history = await this.#wal.timelineHistory(timeline)
      await this.#writer.addTimelineHistory(timeline, history.bytes)
    }
    await this.#wal.start({
      fromLsn: segmentStart(fromSegment, walSegmentBytes),
      timeline,
      onSegment: ({ segment, bytes }) => {
        watch.push(bytes)
        return this.#writer.addWalSegment({ timeline, segment, segmentBytes: walSegmentBytes }, bytes)
      },
    })
  }

  onFile(file: BackupFile): Promise<void> | undefined {
    const { type, mode, size } = file
    const linkTarget = file.linkTarget === undefined ? '' : byteString(file.linkTarget)
    const path = file.pathBytes === undefined ? byteString(file.path) : file.pathBytes.toString('latin1')
    this.#writer.beginFile({ type, path, mode, modifiedAt: file.mtime, size, linkTarget })
    // Files are ended by onFileEnd; directories and links have no contents to wait for.
    return type === 'file' ? undefined : this.#writer.endFile()
  }

  onFileChunk(chunk: Buffer): void | Promise<void> {
    return this.#writer.write(chunk)
  }

  onFileEnd(): Promise<void> | undefined {
    return this.#writer.endFile()
  }

  onManifestChunk(chunk: Buffer): void | Promise<void> {
    if (!this.#manifestOpen) {
      this.#manifestOpen = true
      const modifiedAt = Math.floor(Date.now() / 1000)
      this.#writer.beginFile({
        type: 'file',
        path: 'backup_manifest',
        mode: 0o600,
        modifiedAt,
        size: undefined,
        linkTarget: '',
      })
    }
    return this.#writer.write(chunk)
  }

  async endManifest(): Promise<void> {
    if (!this.#manifestOpen) throw new RangeError('the server sent no manifest')
    await this.#writer.endFile()
  }

  onProgress(bytesDone: number, bytesTotal: number): void {
    this.bytesDone = bytesDone
    const progress: Progress = {
      phase: 'copy',
      bytesDone,
      bytesTotal: Math.max(bytesTotal, bytesDone),
      bytesStored: this.#writer.storedBytes,
      files: this.#writer.totals.files,
    }
    this.#report(progress)
  }
}

/** One character per byte: file lists keep names as the bytes they are. */
function byteString(text: string): string {
  return Buffer.from(text).toString('latin1')
}
