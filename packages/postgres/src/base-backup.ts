import { abortError } from '@tidemark/kernel'
import type { DatabaseError } from 'pg'
import type { ConnectionTarget } from './connection-target.ts'
import { BaseBackupReceiver } from './base-backup-receiver.ts'
import type { BaseBackupEnd, BaseBackupSink } from './base-backup-sink.ts'
import { exchange } from './exchange.ts'
import { connectReplication, type ReplicationConnection } from './replication-connection.ts'

/**
 * A base backup over the replication protocol (src/backend/backup/basebackup.c, basebackup_copy.c).
 *
 * WAL is not part of it (`WAL false`): with it, a busy server may have removed a segment by the
 * time everything else is sent, and the whole backup fails. `WAIT false`: otherwise the server waits
 * for archive_command, perhaps for ever. Open a WalStream before this and finish it after.
 *
 * The verdict is CommandComplete + ReadyForQuery and nothing earlier: page checksum failures are
 * reported after the row with the stop LSN.
 */
export interface BaseBackupOptions {
  readonly label: string
  /** Of the server that was checked before: a login that reaches another one, or a standby of it, is refused. */
  readonly systemId?: string | undefined
  /** `fast`: at once, at the price of an I/O burst. `spread`: within checkpoint_timeout. */
  readonly checkpoint: 'fast' | 'spread'
  /** 32 to 1,048,576 KiB per second. */
  readonly maxRateKiB?: number | undefined
  /** Silence allowed before the first byte, while the server runs its checkpoint; 15 min for fast, 25 h for spread. */
  readonly startTimeoutMs?: number | undefined
  /** Silence allowed between bytes; 60 s. */
  readonly idleTimeoutMs?: number | undefined
}

const defaultIdleTimeoutMs = 60_000
const startTimeoutMs = { fast: 15 * 60_000, spread: 25 * 3_600_000 }

/**
 * @throws {ConnectionLostError} cut, silent, or the server was killed; safe to repeat.
 * @throws {ServerShutdownError} stopped in mid-stream.
 * @throws {ServerMismatchError} @throws {StandbyRefusedError} this login reached another server than the checks.
 * @throws {AbortedError} `signal` fired; the walsender is asked to cancel.
 * @throws whatever a sink callback throws.
 */
export async function runBaseBackup(
  target: ConnectionTarget,
  options: BaseBackupOptions,
  sink: BaseBackupSink,
  signal: AbortSignal,
): Promise<BaseBackupEnd> {
  await using connection = await connectReplication(target, signal)
  if (options.systemId !== undefined) await connection.requirePrimary(options.systemId, 'BASE_BACKUP')
  return await receiveBaseBackup(connection, options, sink, signal)
}

async function receiveBaseBackup(
  connection: ReplicationConnection,
  options: BaseBackupOptions,
  sink: BaseBackupSink,
  signal: AbortSignal,
): Promise<BaseBackupEnd> {
  const receiver = new BaseBackupReceiver(sink)
  const onNotice = (notice: DatabaseError): void => receiver.takeNotice(notice)
  const onAbort = (): void => connection.requestCancel()
  signal.addEventListener('abort', onAbort, { once: true })
  connection.wire.on('notice', onNotice)
  try {
    await exchange(connection, baseBackupCommand(options), (message) => receiver.take(message), {
      during: 'BASE_BACKUP',
      firstDataTimeoutMs: options.startTimeoutMs ?? startTimeoutMs[options.checkpoint],
      idleTimeoutMs: options.idleTimeoutMs ?? defaultIdleTimeoutMs,
    })
    return receiver.verdict((error) => connection.translate(error, 'BASE_BACKUP'))
  } catch (error) {
    throw signal.aborted ? abortError(signal, 'the base backup') : error
  } finally {
    connection.wire.off('notice', onNotice)
    signal.removeEventListener('abort', onAbort)
  }
}

/** The command of PostgreSQL 15 and later (doc: "Streaming Replication Protocol", BASE_BACKUP). */
function baseBackupCommand(options: BaseBackupOptions): string {
  const { label, checkpoint, maxRateKiB } = options
  if (maxRateKiB !== undefined && !(Number.isInteger(maxRateKiB) && maxRateKiB >= 32 && maxRateKiB <= 1_048_576)) {
    throw new RangeError(`maxRateKiB must be a whole number from 32 to 1048576, not ${maxRateKiB}`)
  }
  const rate = maxRateKiB === undefined ? '' : `, MAX_RATE ${maxRateKiB}`
  return (
    `BASE_BACKUP (LABEL '${label.replaceAll("'", "''")}', CHECKPOINT '${checkpoint}', MANIFEST 'yes', ` +
    `MANIFEST_CHECKSUMS 'SHA256', PROGRESS, WAL false, WAIT false, TABLESPACE_MAP true${rate})`
  )
}
