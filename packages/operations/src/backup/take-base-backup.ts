/**
 * Takes one base backup of a cluster into a repository set, over the replication protocol.
 *
 * Order: preflight → load-limiting lock → WAL stream over a temporary slot → begin objects → BASE_BACKUP, its tar cut into packs, WAL segments beside
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
  type ServerFacts,
  type SqlConnection,
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
import { findCommitted } from './find-committed.ts'
import { recordedServer } from './recorded-server.ts'
import { sourceFacts } from './source-facts.ts'

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
 * @throws {PreflightFailedError} with every failing check. @throws {ClusterBusyError} @throws {ConnectionLostError} and others of the postgres package.
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
  const [row] = await lock.query<{ locked: boolean }>('SELECT pg_try_advisory_lock($1, $2) AS locked', [
    LOCK_SPACE,
    LOCK_BASE_BACKUP,
  ])
  if (row?.locked !== true) throw new ClusterBusyError(cluster)
  // Another worker with the same operation may have committed, and let the lock go, since the first look.
  const meanwhile = await findCommitted(deps.set, request, deps.signal)
  if (meanwhile !== undefined) return meanwhile

  // One signal for everything that runs beside the copy: whichever part breaks stops the others, with its own error.
  const stop = new AbortController()
  const signal = AbortSignal.any([deps.signal, stop.signal])
  await using wal = await openWalStream(target, signal)
  await using writer = await BackupWriter.begin(
    deps.set,
    deps.keys,
    { cluster, systemId: facts.systemId, operationId, sealing: request.sealing, writerVersion: deps.writerVersion },
    { clock: deps.clock, logger, signal },
  )
  logger.info({ cluster, operationId, backupId: writer.backupId, systemId: facts.systemId }, 'base backup begun')
  // Settles only once the stream was started: nobody waits for it.
  void wal.finished.catch((error: unknown) => stop.abort(error))
  try {
    const sink = new BackupSink(writer, wal, facts, deps.progress)
    const end = await runBaseBackup(
      target,
      {
        label: request.label ?? `tidemark ${writer.backupId}`,
        checkpoint: request.checkpoint,
        maxRateKiB: request.maxRateKiB,
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
    const damaged = end.kind === 'damaged'
    const committed = await writer.commit({
      timeline: end.timeline,
      startLsn: end.startLsn,
      stopLsn: end.stopLsn,
      verdict: damaged ? 'damaged' : 'intact',
      damage: damaged
        ? [end.checksumFailure, ...end.notices].flatMap((notice) => (notice === undefined ? [] : [notice.message]))
        : [],
      server: recordedServer(facts, await tablespacesOf(lock, facts, sink)),
      source: sourceFacts(facts, target),
      skipped: 0,
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
    return committed
  } catch (error) {
    // What broke first is the reason; the rest is its consequence.
    if (stop.signal.aborted) throw stop.signal.reason
    throw error
  } finally {
    stop.abort(abortError(AbortSignal.abort(), 'the base backup'))
  }
}

/**
 * Every tablespace that this backup has, or whose making its WAL replays: those before it, those the server sent, and those there are after it.
 * Replay of CREATE TABLESPACE on the source's own host would adopt the live directory, so a restore must know of each.
 */
async function tablespacesOf(connection: SqlConnection, facts: ServerFacts, sink: BackupSink): Promise<Set<string>> {
  const after = await connection.query<{ oid: string }>(
    "SELECT oid::text FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global')",
  )
  return new Set([
    ...facts.tablespaces.map(({ oid }) => String(oid)),
    ...sink.tablespaceOids,
    ...after.map(({ oid }) => oid),
  ])
}

/** Hands what the server sends to the writer, and starts the WAL stream once the start LSN is known. */
class BackupSink implements BaseBackupSink {
  readonly #writer: BackupWriter
  readonly #wal: WalStream
  readonly #facts: ServerFacts
  readonly #report: ReportProgress
  #manifestOpen = false
  bytesDone = 0
  tablespaceOids: readonly string[] = []

  constructor(writer: BackupWriter, wal: WalStream, facts: ServerFacts, report: ReportProgress) {
    this.#writer = writer
    this.#wal = wal
    this.#facts = facts
    this.#report = report
  }

  async onStart({ startLsn, timeline, tablespaces }: BaseBackupStart): Promise<void> {
    this.tablespaceOids = tablespaces.map(({ oid }) => String(oid))
    const { walSegmentBytes } = this.#facts
    this.#writer.setStart(startLsn)
    if (timeline > 1) {
      const history = await this.#wal.timelineHistory(timeline)
      await this.#writer.addTimelineHistory(timeline, history.bytes)
    }
    await this.#wal.start({
      fromLsn: segmentStart(segmentNumber(startLsn, walSegmentBytes), walSegmentBytes),
      timeline,
      onSegment: ({ segment, bytes }) =>
        this.#writer.addWalSegment({ timeline, segment, segmentBytes: walSegmentBytes }, bytes),
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
