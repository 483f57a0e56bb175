/**
 * Which frames lie in adopted packs, by keyed digest: one table in shared memory that every sealing thread looks into.
 *
 * Open addressing; slots of 32 bytes: digest (16), plaintext length + 1 (u32, 0 = free), pack (u32), frame (u32), unused (u32). Filled before
 * the threads get it, and never changed after: no locks.
 */
const SLOT_BYTES = 32
const LENGTH_AT = 16
const PACK_AT = 20
const FRAME_AT = 24
const MAX_FILL = 0.77
/** 16 MiB of table: 400 GB of database in frames of 1 MiB. */
export const MAX_ADOPTED_FRAMES = 400_000

export class AdoptedFrames {
  readonly shared: SharedArrayBuffer
  readonly #bytes: Buffer
  readonly #slots: number
  #count = 0

  constructor(shared: SharedArrayBuffer) {
    this.shared = shared
    this.#bytes = Buffer.from(shared)
    this.#slots = shared.byteLength / SLOT_BYTES
  }

  /** Room for `frames`, at most MAX_ADOPTED_FRAMES of them. */
  static withRoomFor(frames: number): AdoptedFrames {
    const wanted = Math.min(Math.max(frames, 1), MAX_ADOPTED_FRAMES)
    const slots = 2 ** Math.ceil(Math.log2(wanted / MAX_FILL))
    return new AdoptedFrames(new SharedArrayBuffer(slots * SLOT_BYTES))
  }

  get count(): number {
    return this.#count
  }

  /** @returns false: there is no more room. A frame that is known already stays where it was. */
  add(digest: Uint8Array, length: number, pack: number, frame: number): boolean {
    if (this.#count >= Math.floor(this.#slots * MAX_FILL)) return false
    const at = this.#slotOf(digest)
    if (this.#bytes.readUInt32LE(at + LENGTH_AT) !== 0) return true
    this.#bytes.set(digest, at)
    this.#bytes.writeUInt32LE(pack, at + PACK_AT)
    this.#bytes.writeUInt32LE(frame, at + FRAME_AT)
    this.#bytes.writeUInt32LE(length + 1, at + LENGTH_AT)
    this.#count += 1
    return true
  }

  find(digest: Uint8Array, length: number): { pack: number; frame: number } | undefined {
    const at = this.#slotOf(digest)
    if (this.#bytes.readUInt32LE(at + LENGTH_AT) !== length + 1) return undefined
    return { pack: this.#bytes.readUInt32LE(at + PACK_AT), frame: this.#bytes.readUInt32LE(at + FRAME_AT) }
  }

  /** Offset of the slot that has this digest, or of the free one where it belongs. */
  #slotOf(digest: Uint8Array): number {
    // The digest is a MAC: its first bytes are as good as any hash.
    let slot = new DataView(digest.buffer, digest.byteOffset, digest.byteLength).getUint32(0, true) % this.#slots
    for (;;) {
      const at = slot * SLOT_BYTES
      if (this.#bytes.readUInt32LE(at + LENGTH_AT) === 0) return at
      if (this.#bytes.compare(digest, 0, 16, at, at + 16) === 0) return at
      slot = (slot + 1) % this.#slots
    }
  }
}
