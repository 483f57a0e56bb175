import { lsn, type Lsn } from '@tidemark/kernel'
import { StreamMalformedError } from './errors.ts'

/**
 * The messages inside a physical replication stream (doc: "Streaming Replication Protocol";
 * WalSndPrepareWrite and WalSndKeepalive in src/backend/replication/walsender.c).
 */
export type WalMessage =
  /** `bytes` is a view, valid as long as the message it came in. */
  | { readonly kind: 'wal'; readonly startLsn: Lsn; readonly endLsn: Lsn; readonly bytes: Buffer }
  | { readonly kind: 'keepalive'; readonly endLsn: Lsn; readonly replyRequested: boolean }

export function decodeWalMessage(chunk: Buffer): WalMessage {
  const type = chunk[0]
  if (type === 0x77 && chunk.length >= 25) {
    const startLsn = lsn(chunk.readBigUInt64BE(1))
    return { kind: 'wal', startLsn, endLsn: lsn(chunk.readBigUInt64BE(9)), bytes: chunk.subarray(25) }
  }
  if (type === 0x6b && chunk.length === 18) {
    return { kind: 'keepalive', endLsn: lsn(chunk.readBigUInt64BE(1)), replyRequested: chunk[17] === 1 }
  }
  throw new StreamMalformedError('an unknown message in the WAL stream', { type, bytes: chunk.length })
}

export interface StandbyStatus {
  /** End of what was received. */
  readonly writtenLsn: Lsn
  /** End of what is safe; 0 claims nothing and keeps the server from counting us as a standby. */
  readonly flushedLsn: Lsn
  /** Asks for a keepalive back: the proof that the server is alive while it has no WAL to send. */
  readonly replyWanted: boolean
}

/** PostgreSQL counts microseconds from 2000-01-01 00:00 UTC (src/include/datatype/timestamp.h). */
const postgresEpochMs = 946_684_800_000

export function encodeStandbyStatus(status: StandbyStatus, nowMs: number): Buffer {
  const message = Buffer.alloc(34)
  message[0] = 0x72 // 'r'
  message.writeBigUInt64BE(status.writtenLsn, 1)
  message.writeBigUInt64BE(status.flushedLsn, 9)
  // Applied: 0, "not known": nothing is replayed here.
  message.writeBigUInt64BE(0n, 17)
  message.writeBigInt64BE(BigInt(Math.trunc(nowMs) - postgresEpochMs) * 1000n, 25)
  message[33] = status.replyWanted ? 1 : 0
  return message
}
