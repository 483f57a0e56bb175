/** Records of one size, in blocks: hundreds of thousands of them cost their bytes and no objects. */
const PER_BLOCK = 1024

export class GrowingRecords {
  readonly #size: number
  readonly #blocks: Buffer[] = []
  #count = 0

  constructor(size: number) {
    this.#size = size
  }

  get count(): number {
    return this.#count
  }

  /** A view of record `i`. @throws {RangeError} */
  at(i: number): Buffer {
    const block = this.#blocks[Math.floor(i / PER_BLOCK)]
    if (i < 0 || i >= this.#count || block === undefined) throw new RangeError(`no record ${i} of ${this.#count}`)
    const at = (i % PER_BLOCK) * this.#size
    return block.subarray(at, at + this.#size)
  }

  /** A new record of zeros, to be filled. */
  add(): Buffer {
    if (this.#count % PER_BLOCK === 0) this.#blocks.push(Buffer.alloc(PER_BLOCK * this.#size))
    this.#count += 1
    return this.at(this.#count - 1)
  }
}
