/**
 * A pack's frame table, read from the pack's first 160 bytes and its end alone.
 *
 * With it any frame can be fetched by itself: what the table says of a frame's place is believed only once that frame's tag has
 * held. Synchronous and CPU-bound: meant for worker threads. Format: docs/repository-format.md, section 3.
 */
import { FRAME_BYTES, HEADER_BYTES, SealRefusedError, StreamOpener } from '@tidemark/crypto'
import { MAX_FRAMES, TABLE_ENTRY_BYTES, TRAILER_BYTES } from './pack-layout.ts'

/** The end of a pack that always has its whole frame table: a frame of as many entries as there may be, and the trailer. */
export const PACK_TAIL_BYTES = MAX_FRAMES * TABLE_ENTRY_BYTES + 128

export interface PackPlace {
  readonly backupId: string
  readonly ordinal: number
  /** Of the whole pack. */
  readonly bytes: number
  /** Hex; the pack table's, where there is one: a pack of another salt is another pack. */
  readonly salt?: string
}

export class PackIndex {
  /** Data frames. */
  readonly frames: number
  readonly #opener: StreamOpener
  readonly #table: Buffer
  readonly #tableOffset: number
  readonly #what: string

  /**
   * @param header the first HEADER_BYTES of the pack, or more. @param tail its last bytes: PACK_TAIL_BYTES, or all of it.
   * @throws {SealRefusedError} @throws {UnknownDataKeyError}
   */
  constructor(header: Buffer, tail: Buffer, place: PackPlace, keyOf: (dataKeyId: string) => Uint8Array, what: string) {
    this.#what = what
    const { backupId, ordinal, bytes, salt } = place
    this.#opener = new StreamOpener(header, keyOf, { kind: 'pack', backupId, ordinal }, what)
    if (salt !== undefined && header.toString('hex', 32, 64) !== salt) throw new SealRefusedError('identity', what)
    if (tail.length < TRAILER_BYTES || bytes < HEADER_BYTES + TRAILER_BYTES)
      throw new SealRefusedError('truncated', what, { bytes })
    const end = tail.length - TRAILER_BYTES
    const tailOffset = bytes - tail.length
    this.#tableOffset = tail.readUInt32BE(end)
    this.frames = tail.readUInt32BE(end + 4)
    const at = Math.max(this.#tableOffset, HEADER_BYTES) - tailOffset
    if (at < 0 || at > end) throw new SealRefusedError('frame-shape', what, { tableOffset: this.#tableOffset })
    const table = this.#opener.open(tail.subarray(0, end), at, this.frames)
    if (table.end !== end) throw new SealRefusedError('trailing-bytes', what)
    if (!table.last || !table.table || table.plaintext.length !== this.frames * TABLE_ENTRY_BYTES) {
      throw new SealRefusedError('frame-shape', what, { tableOffset: this.#tableOffset })
    }
    this.#table = table.plaintext
  }

  /** The keyed digest that the table has for a frame, 16 bytes. */
  digest(frame: number): Buffer {
    const at = this.#entry(frame)
    return this.#table.subarray(at + 8, at + TABLE_ENTRY_BYTES)
  }

  plaintextBytes(frame: number): number {
    return Math.min(this.#table.readUInt32BE(this.#entry(frame) + 4), FRAME_BYTES)
  }

  /** Where a frame begins in the pack; `frames` gives where the last one ends. */
  offset(frame: number): number {
    return frame === this.frames ? this.#tableOffset : this.#table.readUInt32BE(this.#entry(frame))
  }

  /** The plaintext of a frame. @param piece the bytes of the pack from `pieceOffset` on. @throws {SealRefusedError} */
  open(frame: number, piece: Buffer, pieceOffset: number): Buffer {
    const at = this.offset(frame) - pieceOffset
    if (at < 0 || at > piece.length) throw new SealRefusedError('frame-shape', this.#what, { frame })
    const opened = this.#opener.open(piece, at, frame)
    if (opened.last || opened.table || opened.plaintext.length !== this.#table.readUInt32BE(this.#entry(frame) + 4)) {
      throw new SealRefusedError('frame-shape', this.#what, { frame })
    }
    return opened.plaintext
  }

  #entry(frame: number): number {
    if (frame >= this.frames) throw new SealRefusedError('frame-shape', this.#what, { frame, frames: this.frames })
    return frame * TABLE_ENTRY_BYTES
  }
}
