/**
 * Reads frames out of a pack held in memory, in any order.
 *
 * Construction authenticates header and frame table; a frame is authenticated when it is opened. Synchronous and CPU-bound:
 * meant for worker threads.
 */
import { PackIndex } from './pack-index.ts'

export class PackReader {
  readonly frames: number
  readonly #stored: Buffer
  readonly #index: PackIndex

  /** @throws {SealRefusedError} @throws {UnknownDataKeyError} */
  constructor(
    stored: Buffer,
    place: { backupId: string; ordinal: number },
    keyOf: (dataKeyId: string) => Uint8Array,
    what: string,
  ) {
    this.#stored = stored
    this.#index = new PackIndex(stored, stored, { ...place, bytes: stored.length }, keyOf, what)
    this.frames = this.#index.frames
  }

  /** The keyed digest that the table has for a frame, 16 bytes. */
  digest(frame: number): Buffer {
    return this.#index.digest(frame)
  }

  /** The plaintext of a frame. @throws {SealRefusedError} */
  open(frame: number): Buffer {
    return this.#index.open(frame, this.#stored, 0)
  }
}
