import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as fc from 'fast-check'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type Difference, SpooledJoin } from './spooled-join.ts'

let folder = ''
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tidemark-join-'))
})
afterEach(() => rm(folder, { recursive: true }))

const side = fc.dictionary(
  fc.string({ maxLength: 40, unit: fc.nat({ max: 255 }).map((c) => String.fromCharCode(c)) }),
  fc.constantFrom('', 'a', 'b'),
  { maxKeys: 200, noNullPrototype: false },
)

const byKey = (a: Difference, b: Difference): number => (a.key < b.key ? -1 : 1)

test('exactly the differences are found, in whatever order both sides came, and however little is held', async () => {
  await fc.assert(
    fc.asyncProperty(side, side, fc.integer({ min: 1, max: 40_000 }), async (left, right, heldBytes) => {
      await using both = new SpooledJoin(join(folder, 'join'), heldBytes)
      const added = [
        ...Object.entries(left).map(([key, value]) => ['left', key, value] as const),
        ...Object.entries(right).map(([key, value]) => ['right', key, value] as const),
      ]
      for (const [from, key, value] of added) await both.add(from, key, value)
      const expected = [...new Set([...Object.keys(left), ...Object.keys(right)])]
        .map((key) => ({
          key,
          left: Object.hasOwn(left, key) ? left[key] : undefined,
          right: Object.hasOwn(right, key) ? right[key] : undefined,
        }))
        .filter((each) => each.left !== each.right)
      const found: Difference[] = []
      for await (const each of both.differences()) found.push(each)
      expect(found.toSorted(byKey)).toEqual(expected.toSorted(byKey))
    }),
    { numRuns: 60 },
  )
  expect(await readdir(folder)).toEqual([])
})
