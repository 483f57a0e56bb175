import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { FRAME_BYTES } from '@tidemark/crypto'
import { KiB } from '@tidemark/kernel'
import * as fc from 'fast-check'
import { afterAll, expect, test } from 'vitest'
import { DirectWrites } from './direct-writes.ts'
import { OpenFiles } from './target-files.ts'

const FILE_BYTES = 3_000_001
const folder = mkdtempSync(join(tmpdir(), 'tidemark-direct-'))
afterAll(() => rmSync(folder, { recursive: true }))

/** At an odd address: refused by every disk. */
const crooked = (): DirectWrites => new DirectWrites(new Uint8Array(new ArrayBuffer(FRAME_BYTES + 1), 1))

test.each([
  { what: 'directly where that works', direct: () => new DirectWrites() },
  { what: 'in the ordinary way where it does not', direct: crooked },
])('whatever is written to wherever is there afterwards, $what', ({ direct }) => {
  const path = join(folder, 'file')
  const writes = fc.array(
    fc.record({
      offset: fc.oneof(
        fc.nat({ max: FILE_BYTES - 1 }),
        fc.nat({ max: 700 }).map((page) => page * 4096),
      ),
      length: fc.oneof(fc.nat({ max: 5000 }), fc.integer({ min: 100 * KiB, max: FRAME_BYTES })),
      fill: fc.integer({ min: 1, max: 255 }),
    }),
    { minLength: 1, maxLength: 12 },
  )
  fc.assert(
    fc.property(writes, (all) => {
      const expected = Buffer.alloc(FILE_BYTES)
      writeFileSync(path, '')
      truncateSync(path, FILE_BYTES)
      using files = new OpenFiles(() => path, direct())
      for (const { offset, length, fill } of all) {
        const bytes = Buffer.alloc(Math.min(length, FILE_BYTES - offset), fill)
        bytes.copy(expected, offset)
        files.write(0, bytes, offset)
      }
      expect(readFileSync(path).equals(expected)).toBe(true)
    }),
    { numRuns: 60 },
  )
})

test('a disk that refuses direct writes is asked once', () => {
  const path = join(folder, 'refusing')
  writeFileSync(path, Buffer.alloc(FRAME_BYTES))
  const direct = crooked()
  using files = new OpenFiles(() => path, direct)
  expect(direct.partOf(0, FRAME_BYTES)).toEqual({ skip: 0, bytes: FRAME_BYTES })
  files.write(0, Buffer.alloc(FRAME_BYTES, 7), 0)
  expect(direct.works).toBe(false)
  expect(direct.partOf(0, FRAME_BYTES)).toBeUndefined()
  expect(readFileSync(path).equals(Buffer.alloc(FRAME_BYTES, 7))).toBe(true)
})

test('only whole pages go directly, and only where it is worth it', () => {
  const direct = new DirectWrites()
  expect(direct.partOf(8192, FRAME_BYTES)).toEqual({ skip: 0, bytes: FRAME_BYTES })
  expect(direct.partOf(100, FRAME_BYTES - 5)).toEqual({ skip: 3996, bytes: FRAME_BYTES - 4096 })
  expect(direct.partOf(0, 128 * KiB - 1)).toBeUndefined()
})
