import { createHash } from 'node:crypto'

const ZEROS = Buffer.alloc(65_536)

/** The SHA-256 of a file, fed piece by piece; holes are zeros. */
export class FileHash {
  readonly #hash = createHash('sha256')
  #reached = 0

  add(fileOffset: number, piece: Uint8Array): void {
    this.#zeros(fileOffset)
    this.#hash.update(piece)
    this.#reached += piece.length
  }

  end(size: number): string {
    this.#zeros(size)
    return this.#hash.digest('hex')
  }

  #zeros(upTo: number): void {
    while (this.#reached < upTo) {
      const length = Math.min(ZEROS.length, upTo - this.#reached)
      this.#hash.update(ZEROS.subarray(0, length))
      this.#reached += length
    }
  }
}
