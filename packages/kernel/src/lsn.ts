/**
 * Positions in the write-ahead log.
 *
 * An LSN is a byte address in one endless log (src/include/access/xlogdefs.h). It is 64 bits wide,
 * so it is a branded bigint here: a JavaScript number would lose bits past 8 PiB of WAL, and an
 * unbranded bigint would let a size pass for a position.
 */
export type Lsn = bigint & { readonly __lsn: unique symbol }

const LSN = /^([0-9A-F]{1,8})\/([0-9A-F]{1,8})$/i
const SEGMENT = /^([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})$/

/** @throws {RangeError} when the value does not fit 64 bits. */
export function lsn(value: bigint): Lsn {
  if (value < 0n || value > 0xffff_ffff_ffff_ffffn) throw new RangeError(`not an LSN: ${value}`)
  return value as Lsn
}

/** Reads PostgreSQL's text form, `16/B374D848`. @throws {RangeError} */
export function parseLsn(text: string): Lsn {
  const match = LSN.exec(text)
  if (!match) throw new RangeError(`not an LSN: ${JSON.stringify(text)}`)
  return ((BigInt(`0x${match[1]}`) << 32n) | BigInt(`0x${match[2]}`)) as Lsn
}

/** PostgreSQL's text form, upper-case hex without padding. */
export function formatLsn(position: Lsn): string {
  return `${(position >> 32n).toString(16).toUpperCase()}/${(position & 0xffff_ffffn).toString(16).toUpperCase()}`
}

/** The number of the segment that holds `position`, counted from 0 at LSN 0/0. */
export function segmentNumber(position: Lsn, segmentBytes: number): bigint {
  return position / BigInt(segmentBytes)
}

/** The first LSN of a segment. */
export function segmentStart(segment: bigint, segmentBytes: number): Lsn {
  return (segment * BigInt(segmentBytes)) as Lsn
}

/**
 * The 24 hex digits PostgreSQL names a segment file with: timeline, log id, segment within the log id
 * (XLogFileName in src/include/access/xlog_internal.h).
 */
export function walFileName(timeline: number, segment: bigint, segmentBytes: number): string {
  const perLogId = 0x1_0000_0000n / BigInt(segmentBytes)
  return hex8(BigInt(timeline)) + hex8(segment / perLogId) + hex8(segment % perLogId)
}

function hex8(value: bigint): string {
  return value.toString(16).toUpperCase().padStart(8, '0')
}

/** The reverse of walFileName. @throws {RangeError} when `name` is no segment name. */
export function parseWalFileName(name: string, segmentBytes: number): { timeline: number; segment: bigint } {
  const match = SEGMENT.exec(name)
  const perLogId = 0x1_0000_0000n / BigInt(segmentBytes)
  const low = BigInt(`0x${match?.[3] ?? '0'}`)
  if (!match || low >= perLogId) throw new RangeError(`not a WAL segment name: ${JSON.stringify(name)}`)
  return { timeline: Number.parseInt(match[1] ?? '', 16), segment: BigInt(`0x${match[2]}`) * perLogId + low }
}

/**
 * The segment numbers that a backup from `start` to `stop` needs, first and last included.
 * `stop` is the end address of the backup-end record: when it is a segment's first byte, the last
 * needed segment is the one before (XLByteToPrevSeg).
 */
export function segmentRange(start: Lsn, stop: Lsn, segmentBytes: number): { first: bigint; last: bigint } {
  const first = segmentNumber(start, segmentBytes)
  const last = segmentNumber((stop > start ? stop - 1n : stop) as Lsn, segmentBytes)
  return { first, last }
}
