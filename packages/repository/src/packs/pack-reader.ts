/**
 * Reads frames out of a pack held in memory, in any order.
 *
 * Construction authenticates header and frame table; a frame is authenticated when it is opened. Synchronous and CPU-bound:
 * meant for worker threads. Format: docs/repository-format.md, section 3.
 */
import { HEADER_BYTES, SealRefusedError, StreamOpener } from '@tidemark/crypto'
import { TABLE_ENTRY_BYTES, TRAILER_BYTES } from './pack-layout.ts'

export class PackReader {
  readonly frames: number
  readonly #stored: Buffer
  readonly #opener: StreamOpener
  readonly #table: Buffer
  readonly #what: string

  /** @throws {SealRefusedError} @throws {UnknownDataKeyError} */
  constructor(
    stored: Buffer,
    place: { backupId: string; ordinal: number },
    keyOf: (dataKeyId: string) => Uint8Array,
    what: string,
  ) {
    this.#stored = stored
    this.#what = what
    this.#opener = new StreamOpener(stored, keyOf, { kind: 'pack', ...place }, what)
    if (stored.length < HEADER_BYTES + TRAILER_BYTES)
      throw new SealRefusedError('truncated', what, { bytes: stored.length })
    const end = stored.length - TRAILER_BYTES
    const tableOffset = stored.readUInt32BE(end)
    this.frames = stored.readUInt32BE(end + 4)
    const table = this.#opener.open(stored.subarray(0, end), Math.max(tableOffset, HEADER_BYTES), this.frames)
    if (table.end !== end) throw new SealRefusedError('trailing-bytes', what)
    if (!table.last || !table.table || table.plaintext.length !== this.frames * TABLE_ENTRY_BYTES) {
      throw new SealRefusedError('frame-shape', what, { tableOffset })
    }
    this.#table = table.plaintext
  }

  /** The keyed digest that the table has for a frame, 16 bytes. */
  digest(frame: number): Buffer {
    const at = this.#entry(frame)
    return this.#table.subarray(at + 8, at + TABLE_ENTRY_BYTES)
  }

  /** The plaintext of a frame. @throws {SealRefusedError} */
  open(frame: number): Buffer {
    const at = this.#entry(frame)
    const opened = this.#opener.open(this.#stored, this.#table.readUInt32BE(at), frame)
    if (opened.last || opened.table || opened.plaintext.length !== this.#table.readUInt32BE(at + 4)) {
      throw new SealRefusedError('frame-shape', this.#what, { frame })
    }
    return opened.plaintext
  }

  #entry(frame: number): number {
    if (frame >= this.frames) throw new SealRefusedError('frame-shape', this.#what, { frame, frames: this.frames })
    return frame * TABLE_ENTRY_BYTES
  }
}
