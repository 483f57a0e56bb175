/**
 * One extent of a restore as a row of eight 32-bit words, in memory and in the spool.
 *
 * pack, frame, offset in frame, length (bit 31: the last pack of this file), file, offset in file (low, high word), zero.
 * A row of length 0 carries nothing but its bit: files without contents are synced like all others.
 */
import { closeSync, openSync, readSync } from 'node:fs'

export const ROW_WORDS = 8
export const ROW_BYTES = ROW_WORDS * 4
export const LAST_OF_FILE = 0x8000_0000
const LENGTH = 0x7fff_ffff
const CHUNK_ROWS = 4096

export interface ExtentRow {
  frame: number
  frameOffset: number
  length: number
  lastOfFile: boolean
  file: number
  fileOffset: number
}

/** Reads rows of a sorted spool, a chunk at a time. For worker threads: it blocks. */
export class ExtentRows implements Disposable {
  readonly #descriptor: number
  readonly #words = new Uint32Array(CHUNK_ROWS * ROW_WORDS)
  /** One for all rows: nothing is allocated for a row. */
  readonly #row: ExtentRow = { frame: 0, frameOffset: 0, length: 0, lastOfFile: false, file: 0, fileOffset: 0 }

  constructor(path: string) {
    this.#descriptor = openSync(path, 'r')
  }

  /** Rows `from` to `to`, which are of one pack, those of frames before `firstFrame` left out. The row is the same object each time. */
  *read(from: number, to: number, firstFrame = 0): Generator<ExtentRow> {
    const words = this.#words
    for (let at = this.#firstOf(from, to, firstFrame); at < to; at += CHUNK_ROWS) {
      const rows = Math.min(CHUNK_ROWS, to - at)
      this.#fill(at, rows)
      for (let i = 0; i < rows * ROW_WORDS; i += ROW_WORDS) {
        const row = this.#row
        row.frame = words[i + 1] ?? 0
        row.frameOffset = words[i + 2] ?? 0
        row.length = (words[i + 3] ?? 0) & LENGTH
        row.lastOfFile = (words[i + 3] ?? 0) >= LAST_OF_FILE
        row.file = words[i + 4] ?? 0
        row.fileOffset = (words[i + 5] ?? 0) + (words[i + 6] ?? 0) * 2 ** 32
        yield row
      }
    }
  }

  [Symbol.dispose](): void {
    closeSync(this.#descriptor)
  }

  #firstOf(from: number, to: number, frame: number): number {
    if (frame === 0) return from
    let [low, high] = [from, to]
    while (low < high) {
      const middle = Math.floor((low + high) / 2)
      this.#fill(middle, 1)
      if ((this.#words[1] ?? 0) < frame) low = middle + 1
      else high = middle
    }
    return low
  }

  #fill(row: number, rows: number): void {
    const wanted = rows * ROW_BYTES
    const got = readSync(this.#descriptor, this.#words, 0, wanted, row * ROW_BYTES)
    if (got !== wanted) throw new Error(`the spool of extents ends at row ${row}`)
  }
}
