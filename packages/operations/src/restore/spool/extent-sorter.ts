/**
 * Sorts any number of extents by pack and frame, in 20 MiB of memory.
 *
 * Rows gather in memory; full, they are sorted and written out as a run, and the runs are merged in the end. A file list is nearly in
 * the order of its packs, so runs hardly overlap and merging is mostly copying.
 */
import { freeBuffer, pageAligned } from '@tidemark/kernel'
import type { Extent } from '@tidemark/repository'
import { LAST_OF_FILE, ROW_BYTES, ROW_WORDS } from './extent-rows.ts'
import { SpoolFile } from '../../spool/spool-file.ts'

const ROWS_HELD = 262_144
const MERGE_ROWS = 2048

interface Run {
  readonly from: number
  readonly rows: number
}

export class ExtentSorter implements AsyncDisposable {
  readonly #packs: number
  readonly #rowsHeld: number
  readonly #runsFile: SpoolFile
  readonly #runs: Run[] = []
  readonly #counts: Float64Array
  #words: Uint32Array
  #used = 0
  #sorted = true

  private constructor(packs: number, runsFile: SpoolFile, rowsHeld: number) {
    this.#packs = packs
    this.#runsFile = runsFile
    this.#rowsHeld = rowsHeld
    // Not from malloc: freeing some megabytes there once makes it keep as much in every thread.
    this.#words = new Uint32Array(pageAligned(rowsHeld * ROW_BYTES).buffer, 0, rowsHeld * ROW_WORDS)
    this.#counts = new Float64Array(packs)
  }

  /** @param path of the file for runs. @param rowsHeld in memory at once; for tests. */
  static async create(packs: number, path: string, rowsHeld = ROWS_HELD): Promise<ExtentSorter> {
    return new ExtentSorter(packs, await SpoolFile.create(path), rowsHeld)
  }

  /** A promise where a run has to be written out: wait for it before the next call. @throws {RangeError} a pack there is not. */
  add(file: number, extent: Extent, lastOfFile: boolean): Promise<void> | undefined {
    const { pack, frame, frameOffset, length, fileOffset } = extent
    if (pack >= this.#packs) throw new RangeError(`pack ${pack} is not in the pack table`)
    const words = this.#words
    const at = this.#used * ROW_WORDS
    if (this.#used > 0 && this.#sorted) {
      const before = at - ROW_WORDS
      this.#sorted = !isLess(pack, frame, words[before] ?? 0, words[before + 1] ?? 0)
    }
    words[at] = pack
    words[at + 1] = frame
    words[at + 2] = frameOffset
    words[at + 3] = lastOfFile ? length + LAST_OF_FILE : length
    words[at + 4] = file
    words[at + 5] = fileOffset % 2 ** 32
    words[at + 6] = Math.floor(fileOffset / 2 ** 32)
    words[at + 7] = 0
    this.#used += 1
    this.#counts[pack] = (this.#counts[pack] ?? 0) + 1
    return this.#used === this.#rowsHeld ? this.#spill() : undefined
  }

  /** Writes all rows in order to `out`. @returns where each pack's rows begin in it, counted in rows, and where the last one's end. */
  async finish(out: SpoolFile): Promise<Float64Array> {
    if (this.#runs.length === 0) await out.append(bytesOf(this.#takeSorted()))
    else {
      await this.#spill()
      await this.#merge(out)
    }
    await out.flush()
    freeBuffer(bytesOf(this.#words))
    this.#words = new Uint32Array(0)
    const starts = new Float64Array(this.#packs + 1)
    for (let pack = 0; pack < this.#packs; pack += 1) starts[pack + 1] = (starts[pack] ?? 0) + (this.#counts[pack] ?? 0)
    return starts
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#runsFile[Symbol.asyncDispose]()
  }

  async #spill(): Promise<void> {
    if (this.#used === 0) return
    this.#runs.push({ from: this.#runsFile.length / ROW_BYTES, rows: this.#used })
    await this.#runsFile.append(bytesOf(this.#takeSorted()))
  }

  /** The rows held, in order; those of one frame as they came. Afterwards none is held. */
  #takeSorted(): Uint32Array {
    const words = this.#words.subarray(0, this.#used * ROW_WORDS)
    const { length } = words
    const sorted = this.#sorted
    this.#used = 0
    this.#sorted = true
    if (sorted) return words
    const order = new Uint32Array(length / ROW_WORDS)
    for (let i = 0; i < order.length; i += 1) order[i] = i * ROW_WORDS
    order.sort((a, b) => (words[a] ?? 0) - (words[b] ?? 0) || (words[a + 1] ?? 0) - (words[b + 1] ?? 0) || a - b)
    const result = new Uint32Array(length)
    for (let i = 0; i < order.length; i += 1) {
      const from = order[i] ?? 0
      for (let word = 0; word < ROW_WORDS; word += 1) result[i * ROW_WORDS + word] = words[from + word] ?? 0
    }
    return result
  }

  async #merge(out: SpoolFile): Promise<void> {
    await this.#runsFile.flush()
    const cursors = this.#runs.map((run) => new RunCursor(this.#runsFile, run))
    for (const cursor of cursors) await cursor.load()
    for (;;) {
      let first: RunCursor | undefined
      let second: RunCursor | undefined
      for (const cursor of cursors) {
        if (cursor.ended) continue
        if (first === undefined || isLess(cursor.pack, cursor.frame, first.pack, first.frame)) {
          second = first
          first = cursor
        } else if (second === undefined || isLess(cursor.pack, cursor.frame, second.pack, second.frame)) second = cursor
      }
      if (first === undefined) return
      const [limitPack, limitFrame] = second === undefined ? [Infinity, 0] : [second.pack, second.frame]
      do {
        const written = out.append(first.bytes)
        if (written !== undefined) await written
        const loaded = first.advance()
        if (loaded !== undefined) await loaded
      } while (!first.ended && isLess(first.pack, first.frame, limitPack, limitFrame))
    }
  }
}

/** Walks one run, a chunk in memory at a time. */
class RunCursor {
  readonly #file: SpoolFile
  readonly #words = new Uint32Array(MERGE_ROWS * ROW_WORDS)
  readonly #bytes = bytesOf(this.#words)
  #next: number
  #left: number
  #rows = 0
  #at = 0

  constructor(file: SpoolFile, run: Run) {
    this.#file = file
    this.#next = run.from
    this.#left = run.rows
  }

  get ended(): boolean {
    return this.#at === this.#rows
  }

  get pack(): number {
    return this.#words[this.#at * ROW_WORDS] ?? 0
  }

  get frame(): number {
    return this.#words[this.#at * ROW_WORDS + 1] ?? 0
  }

  /** The row it stands on. */
  get bytes(): Uint8Array {
    return this.#bytes.subarray(this.#at * ROW_BYTES, (this.#at + 1) * ROW_BYTES)
  }

  advance(): Promise<void> | undefined {
    this.#at += 1
    return this.#at === this.#rows && this.#left > 0 ? this.load() : undefined
  }

  async load(): Promise<void> {
    this.#rows = Math.min(MERGE_ROWS, this.#left)
    const wanted = this.#rows * ROW_BYTES
    const got = await this.#file.read(this.#bytes.subarray(0, wanted), this.#next * ROW_BYTES)
    if (got !== wanted) throw new Error(`a run of extents ends at row ${this.#next}`)
    this.#at = 0
    this.#next += this.#rows
    this.#left -= this.#rows
  }
}

function isLess(pack: number, frame: number, otherPack: number, otherFrame: number): boolean {
  return pack < otherPack || (pack === otherPack && frame < otherFrame)
}

function bytesOf(words: Uint32Array): Uint8Array {
  return new Uint8Array(words.buffer, words.byteOffset, words.byteLength)
}
