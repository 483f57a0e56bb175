import { lsn, type Lsn } from '@tidemark/kernel'
import { crc32c } from './crc32c.ts'
import { PostgresFileInvalidError } from './errors.ts'

/**
 * global/pg_control: the first thing a server reads, and what a restore must put in place last
 * (ControlFileData, src/include/catalog/pg_control.h).
 *
 * A C struct in the byte order and alignment of the machine that wrote it. Read here: the layouts of
 * version 1300 (PostgreSQL 13 to 16), 1700 and 1800, little-endian with 8-byte alignment, as on
 * x86-64 and arm64. The CRC-32C is checked before any field but the version is believed.
 */
export interface ControlFile {
  /** As a decimal string. */
  readonly systemId: string
  readonly controlVersion: number
  readonly catalogVersion: number
  readonly state: ClusterState
  readonly checkpointLsn: Lsn
  readonly redoLsn: Lsn
  readonly timeline: number
  /** 0 outside of recovery. */
  readonly minRecoveryLsn: Lsn
  readonly minRecoveryTimeline: number
  readonly backupStartLsn: Lsn
  readonly backupEndLsn: Lsn
  readonly backupEndRequired: boolean
  readonly walSegmentBytes: number
  readonly blockBytes: number
  /** 0: off. */
  readonly dataChecksumVersion: number
  readonly restoreMinima: {
    readonly maxConnections: number
    readonly maxWorkerProcesses: number
    readonly maxWalSenders: number
    readonly maxPreparedTransactions: number
    readonly maxLocksPerTransaction: number
  }
}

/** DBState, in the order of the enum. */
const clusterStates = [
  'starting up',
  'shut down',
  'shut down in recovery',
  'shutting down',
  'in crash recovery',
  'in archive recovery',
  'in production',
] as const
export type ClusterState = (typeof clusterStates)[number]

/** Where the CRC lies: after the 32-byte nonce, which 18 moved by one byte for default_char_signedness. */
const crcOffsets = new Map([
  [1300, 288],
  [1700, 288],
  [1800, 292],
])

/** @throws {PostgresFileInvalidError} wrong version, byte order or CRC. */
export function parseControlFile(bytes: Buffer): ControlFile {
  if (bytes.length < 296) throw new PostgresFileInvalidError('pg_control', 'it is too short', { bytes: bytes.length })
  const controlVersion = bytes.readUInt32LE(8)
  const crcOffset = crcOffsets.get(controlVersion)
  if (crcOffset === undefined) {
    throw new PostgresFileInvalidError('pg_control', 'unknown layout or other byte order', { controlVersion })
  }
  if (crc32c(bytes.subarray(0, crcOffset)) !== bytes.readUInt32LE(crcOffset)) {
    throw new PostgresFileInvalidError('pg_control', 'its CRC does not match', { controlVersion })
  }
  const state = clusterStates[bytes.readInt32LE(16)]
  if (state === undefined) throw new PostgresFileInvalidError('pg_control', 'unknown cluster state')
  const position = (at: number): Lsn => lsn(bytes.readBigUInt64LE(at))
  return {
    systemId: bytes.readBigUInt64LE(0).toString(),
    controlVersion,
    catalogVersion: bytes.readUInt32LE(12),
    state,
    checkpointLsn: position(32),
    // The copy of the last checkpoint record, at 40 to 128, begins with redo and timeline.
    redoLsn: position(40),
    timeline: bytes.readUInt32LE(48),
    minRecoveryLsn: position(136),
    minRecoveryTimeline: bytes.readUInt32LE(144),
    backupStartLsn: position(152),
    backupEndLsn: position(160),
    backupEndRequired: bytes[168] === 1,
    restoreMinima: {
      maxConnections: bytes.readInt32LE(180),
      maxWorkerProcesses: bytes.readInt32LE(184),
      maxWalSenders: bytes.readInt32LE(188),
      maxPreparedTransactions: bytes.readInt32LE(192),
      maxLocksPerTransaction: bytes.readInt32LE(196),
    },
    blockBytes: bytes.readUInt32LE(216),
    walSegmentBytes: bytes.readUInt32LE(228),
    dataChecksumVersion: bytes.readUInt32LE(252),
  }
}
