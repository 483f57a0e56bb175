/**
 * All extents of a restore, grouped by pack, in columns of numbers: 40 bytes each instead of an object.
 */
import type { Extent } from '@tidemark/repository'
import { WRITE_COLUMNS } from './scatter-thread.ts'

export class ExtentTable {
  readonly #packs: { values: Float64Array; used: number; sorted: boolean; lastFrame: number }[]

  constructor(packs: number) {
    this.#packs = Array.from({ length: packs }, () => ({
      values: new Float64Array(0),
      used: 0,
      sorted: true,
      lastFrame: 0,
    }))
  }

  add(file: number, extent: Extent): void {
    const pack = this.#packs[extent.pack]
    if (pack === undefined) throw new RangeError(`pack ${extent.pack} is not in the pack table`)
    if (pack.used + WRITE_COLUMNS > pack.values.length) {
      const grown = new Float64Array(Math.max(64 * WRITE_COLUMNS, pack.values.length * 2))
      grown.set(pack.values)
      pack.values = grown
    }
    pack.values.set([file, extent.fileOffset, extent.frame, extent.frameOffset, extent.length], pack.used)
    pack.used += WRITE_COLUMNS
    if (extent.frame < pack.lastFrame) pack.sorted = false
    pack.lastFrame = extent.frame
  }

  /** The writes of one pack, sorted by frame, with file numbers replaced by indexes into `files`. The pack is forgotten. */
  take(pack: number, pathOf: (file: number) => string): { files: string[]; writes: Float64Array } {
    const column = this.#packs[pack]
    if (column === undefined) return { files: [], writes: new Float64Array(0) }
    const rows: Float64Array[] = []
    for (let at = 0; at < column.used; at += WRITE_COLUMNS) rows.push(column.values.subarray(at, at + WRITE_COLUMNS))
    if (!column.sorted) rows.sort((a, b) => (a[2] ?? 0) - (b[2] ?? 0))
    const indexOf = new Map<number, number>()
    const files: string[] = []
    const writes = new Float64Array(column.used)
    for (const [i, row] of rows.entries()) {
      const file = row[0] ?? 0
      let index = indexOf.get(file)
      if (index === undefined) {
        index = files.length
        indexOf.set(file, index)
        files.push(pathOf(file))
      }
      writes.set(row, i * WRITE_COLUMNS)
      writes[i * WRITE_COLUMNS] = index
    }
    this.#packs[pack] = { values: new Float64Array(0), used: 0, sorted: true, lastFrame: 0 }
    return { files, writes }
  }
}
