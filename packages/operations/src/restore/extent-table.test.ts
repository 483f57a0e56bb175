import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import { ExtentTable } from './extent-table.ts'
import { WRITE_COLUMNS } from './scatter-thread.ts'

const row = fc.record({
  file: fc.nat({ max: 30 }),
  pack: fc.nat({ max: 3 }),
  frame: fc.nat({ max: 100 }),
  fileOffset: fc.nat({ max: 2 ** 40 }),
  frameOffset: fc.nat({ max: 1_048_575 }),
  length: fc.integer({ min: 1, max: 1_048_576 }),
})

test('every extent comes out once, in the pack it went into, sorted by frame, beside its own file', () => {
  fc.assert(
    fc.property(fc.array(row, { maxLength: 300 }), (rows) => {
      const table = new ExtentTable(4)
      for (const { file, ...extent } of rows) table.add(file, extent)
      for (let pack = 0; pack < 4; pack += 1) {
        const { files, writes } = table.take(pack, (file) => `f${file}`)
        const found: string[] = []
        let last = 0
        for (let at = 0; at < writes.length; at += WRITE_COLUMNS) {
          const [index = -1, fileOffset, frame = -1, frameOffset, length] = writes.subarray(at, at + WRITE_COLUMNS)
          expect(frame).toBeGreaterThanOrEqual(last)
          last = frame
          found.push(JSON.stringify([files[index], fileOffset, frame, frameOffset, length]))
        }
        const expected = rows
          .filter((each) => each.pack === pack)
          .map((each) => JSON.stringify([`f${each.file}`, each.fileOffset, each.frame, each.frameOffset, each.length]))
        expect(found.toSorted()).toEqual(expected.toSorted())
        expect(new Set(files).size).toBe(files.length)
        expect(table.take(pack, String).writes).toHaveLength(0)
      }
    }),
  )
})

test('a pack that the table does not have is refused', () => {
  const extent = { fileOffset: 0, length: 1, pack: 2, frame: 0, frameOffset: 0 }
  expect(() => new ExtentTable(2).add(0, extent)).toThrow(RangeError)
  expect(new ExtentTable(2).take(9, String)).toEqual({ files: [], writes: new Float64Array(0) })
})
