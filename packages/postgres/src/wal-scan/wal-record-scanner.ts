/**
 * Finds the records of chosen resource managers in WAL segments that pass by.
 *
 * Layouts: src/include/access/xlog_internal.h (pages) and xlogrecord.h (records) of PostgreSQL 15 to 18, little-endian, as
 * on x86-64 and arm64. A record begins at a multiple of 8 and may cross any number of pages and segments; every page begins
 * with a header that says how much of such a record is still to come.
 *
 * It reads as recovery does, and like recovery cannot tell damage from the end: where something does not hold together, valid WAL
 * ends. Every record's place in the chain is checked (xl_prev, xlp_rem_len, xlp_pageaddr); CRC-32C only of records
 * that are yielded. That is enough: the server replays no record whose CRC fails, and nothing after it, so one that damage hides
 * from us can do nothing either.
 *
 * Cost: a few comparisons for each record, and a copy of the wanted ones only. Memory: one wanted record.
 */
import { lsn, segmentStart, type Lsn } from '@tidemark/kernel'
import { crc32c } from '../crc32c.ts'
import { mainDataOf } from './main-data.ts'

/** src/include/access/rmgrlist.h; the order is part of the WAL format and only grows at its end. */
const RM_XLOG_ID = 0
export const RM_TBLSPC_ID = 5

export interface WalRecord {
  /** Where it begins. */
  readonly lsn: Lsn
  readonly resourceManager: number
  /** The resource manager's own bits of xl_info. */
  readonly info: number
  readonly transactionId: number
  /** The main data; block references and their images are left out. */
  readonly data: Buffer
}

export interface WalRecordScannerOptions {
  readonly walSegmentBytes: number
  /** The first segment to be pushed, counted from 0 at LSN 0/0. */
  readonly fromSegment: bigint
  /** Pages of a later timeline end the scan. */
  readonly timeline?: number | undefined
  /** Whose records are wanted, by their numbers in rmgrlist.h; tablespaces' (RM_TBLSPC_ID) by default. */
  readonly resourceManagers?: readonly number[] | undefined
}

const SHORT_PAGE_HEADER = 24
const LONG_PAGE_HEADER = 40
const RECORD_HEADER = 24
const FIRST_IS_CONTRECORD = 0x1
const FIRST_IS_OVERWRITE_CONTRECORD = 0x8
/** XLOG_PAGE_MAGIC of 15, 16, 17 and 18. */
const PAGE_MAGICS = new Set([0xd110, 0xd113, 0xd116, 0xd118])
const XLOG_SWITCH = 0x40
/** Above any record that is looked for (a path of 1,024 bytes, a list of tablespaces): more is a length that damage made up. */
const MAX_WANTED_BYTES = 1024 * 1024
/** XLogRecordMaxSize. */
const MAX_RECORD_BYTES = 1020 * 1024 * 1024

export class WalRecordScanner {
  readonly #segmentBytes: number
  readonly #timeline: number
  readonly #wanted: ReadonlySet<number>
  #segment: bigint
  #pageBytes = 8192
  /** Bytes still to come of the record being read; 0 between records. */
  #remaining = 0
  /** It began before the scan did: it is only passed over. */
  #unseen = false
  #place: Place = { high: 0, low: 0 }
  readonly #header = Buffer.alloc(RECORD_HEADER)
  #headerBytes = 0
  /** What follows the header, where the record is wanted. */
  #body: Buffer[] | undefined
  /** Start of the record before; undefined where the scan, or a repaired end, begins. */
  #previous: Place | undefined
  #ended: { readonly lsn: Lsn; readonly reason: string } | undefined

  constructor(options: WalRecordScannerOptions) {
    this.#segmentBytes = options.walSegmentBytes
    this.#timeline = options.timeline ?? 0xffff_ffff
    this.#wanted = new Set(options.resourceManagers ?? [RM_TBLSPC_ID])
    this.#segment = options.fromSegment
  }

  /** Where valid WAL ended, and by what sign; undefined while it goes on. */
  get ended(): { readonly lsn: Lsn; readonly reason: string } | undefined {
    return this.#ended
  }

  /** Takes the next segment, whole; `bytes` are not kept. @returns the wanted records that end in it. */
  push(bytes: Uint8Array): WalRecord[] {
    if (this.#ended !== undefined) return []
    if (bytes.length !== this.#segmentBytes) throw new RangeError(`a WAL segment of ${bytes.length} bytes`)
    const found: WalRecord[] = []
    const start = segmentStart(this.#segment, this.#segmentBytes)
    const problem = this.#scan(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength), placeOf(start), found)
    if (problem !== undefined) this.#ended = { lsn: lsn(start + BigInt(problem.at)), reason: problem.reason }
    this.#segment += 1n
    return found
  }

  #scan(segment: Buffer, { high, low }: Place, found: WalRecord[]): { at: number; reason: string } | undefined {
    let at = 0
    while (at < segment.length) {
      const inPage = at % this.#pageBytes
      if (inPage === 0) {
        const reason = this.#beginPage(segment, at, { high, low: low + at })
        if (reason !== undefined) return { at, reason }
        at += at === 0 ? LONG_PAGE_HEADER : SHORT_PAGE_HEADER
      }
      if (this.#remaining === 0) {
        // The first 8 bytes of a record never cross a page: both are aligned.
        const length = segment.readUInt32LE(at)
        // A switch that began before this scan cannot be known as one; zeros follow it to the segment's end.
        if (length === 0 && this.#previous === undefined) return undefined
        if (length === 0) return { at, reason: 'no record follows' }
        if (length < RECORD_HEADER || length > MAX_RECORD_BYTES) return { at, reason: 'a record of impossible length' }
        this.#remaining = length
        this.#unseen = false
        this.#place = { high, low: low + at }
        this.#headerBytes = 0
        this.#body = undefined
      }
      const taken = Math.min(this.#remaining, this.#pageBytes - (at % this.#pageBytes))
      const reason = this.#unseen ? undefined : this.#takePart(segment, at, at + taken)
      if (reason !== undefined) return { at, reason }
      this.#remaining -= taken
      at += taken
      if (this.#remaining > 0) continue
      at = (at + 7) & ~7
      if (this.#unseen) continue
      this.#previous = this.#place
      if (this.#body !== undefined) {
        const record = this.#wantedRecord(this.#body)
        if (record === undefined) return { at, reason: 'a record whose CRC or headers are wrong' }
        found.push(record)
      }
      if (this.#header[17] === RM_XLOG_ID && ((this.#header[16] ?? 0) & 0xf0) === XLOG_SWITCH) return undefined
    }
    return undefined
  }

  /** Checks a page's header, and what it says of a record that crosses into the page. */
  #beginPage(segment: Buffer, at: number, place: Place): string | undefined {
    if (!PAGE_MAGICS.has(segment.readUInt16LE(at))) return 'no WAL page of PostgreSQL 15 to 18'
    if (segment.readUInt32LE(at + 8) !== place.low || segment.readUInt32LE(at + 12) !== place.high) {
      return 'a page of another place'
    }
    if (segment.readUInt32LE(at + 4) > this.#timeline) return 'a page of a later timeline'
    if (at === 0) {
      if (segment.readUInt32LE(32) !== this.#segmentBytes) return 'another segment size'
      this.#pageBytes = segment.readUInt32LE(36)
      if (this.#pageBytes < 1024 || this.#segmentBytes % this.#pageBytes !== 0) return 'an impossible page size'
    }
    const info = segment.readUInt16LE(at + 2)
    const left = info & FIRST_IS_CONTRECORD ? segment.readUInt32LE(at + 16) : 0
    if (info & FIRST_IS_OVERWRITE_CONTRECORD) {
      // A crash cut the record off, and the server went on without its end (XLOG_OVERWRITE_CONTRECORD).
      this.#remaining = 0
      this.#previous = undefined
      return undefined
    }
    if (at === 0 && this.#remaining === 0 && this.#previous === undefined) {
      this.#remaining = left
      this.#unseen = true
      return undefined
    }
    return left === this.#remaining ? undefined : 'a record and its page disagree about its length'
  }

  /** Header first; as soon as it is whole, it says whether the rest is kept. */
  #takePart(segment: Buffer, from: number, end: number): string | undefined {
    let at = from
    if (this.#headerBytes < RECORD_HEADER) {
      at = Math.min(end, from + RECORD_HEADER - this.#headerBytes)
      segment.copy(this.#header, this.#headerBytes, from, at)
      this.#headerBytes += at - from
      if (this.#headerBytes < RECORD_HEADER) return undefined
      const before = this.#previous
      const follows =
        before === undefined ||
        (this.#header.readUInt32LE(8) === before.low && this.#header.readUInt32LE(12) === before.high)
      if (!follows) return 'a record that does not follow the one before'
      if (this.#wanted.has(this.#header[17] ?? -1)) {
        if (this.#header.readUInt32LE(0) > MAX_WANTED_BYTES) return 'a wanted record of impossible length'
        this.#body = []
      }
    }
    if (at < end) this.#body?.push(Buffer.from(segment.subarray(at, end)))
    return undefined
  }

  /** The CRC covers what follows the header, and then the header without the CRC (ValidXLogRecord, xlogreader.c). */
  #wantedRecord(parts: readonly Buffer[]): WalRecord | undefined {
    const body = Buffer.concat(parts)
    const header = this.#header
    if (crc32c(Buffer.concat([body, header.subarray(0, 20)])) !== header.readUInt32LE(20)) return undefined
    const data = mainDataOf(body)
    if (data === undefined) return undefined
    return {
      lsn: lsn((BigInt(this.#place.high) << 32n) | BigInt(this.#place.low)),
      resourceManager: header[17] ?? 0,
      info: (header[16] ?? 0) & 0xf0,
      transactionId: header.readUInt32LE(4),
      data,
    }
  }
}

/** An LSN in two halves: this many comparisons of bigints would cost more than all the rest. */
interface Place {
  readonly high: number
  readonly low: number
}

function placeOf(position: Lsn): Place {
  return { high: Number(position >> 32n), low: Number(position & 0xffff_ffffn) }
}
