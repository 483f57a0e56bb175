import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Extent, FileEntry } from '@tidemark/repository'
import * as fc from 'fast-check'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { RestoreSpool, openExtents, openPaths } from './restore-spool.ts'

let folder = ''
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tidemark-spool-'))
})
afterEach(() => rm(folder, { recursive: true }))

const PACKS = 5
const extent = fc.record({
  pack: fc.nat({ max: PACKS - 1 }),
  frame: fc.nat({ max: 100 }),
  fileOffset: fc.nat({ max: 2 ** 45 }),
  frameOffset: fc.nat({ max: 1_048_575 }),
  length: fc.integer({ min: 1, max: 1_048_576 }),
})
const entry = fc.record({
  type: fc.constantFrom('file' as const, 'directory' as const),
  path: fc.string({ minLength: 1, maxLength: 300, unit: fc.nat({ max: 254 }).map((c) => String.fromCharCode(c + 1)) }),
  mode: fc.nat({ max: 0o7777 }),
  modifiedAt: fc.constant(0),
  size: fc.nat({ max: 2 ** 46 }),
  linkTarget: fc.constant(''),
  extents: fc.array(extent, { maxLength: 6 }),
})

async function* streamOf<T>(items: readonly T[]): AsyncGenerator<T> {
  yield* items
}

async function collected<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of items) all.push(item)
  return all
}

/** @param rowsHeld so few that runs have to be merged. */
const fill = (entries: readonly FileEntry[], rowsHeld?: number): Promise<RestoreSpool> =>
  RestoreSpool.fill(join(folder, 'spool'), streamOf(entries), PACKS, rowsHeld)

test('every extent comes out once, with its own file, in its pack, in the order of frames; every name as it was', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(entry, { maxLength: 80 }), fc.integer({ min: 1, max: 40 }), async (entries, rowsHeld) => {
      await using spool = await fill(entries, rowsHeld)
      const files = entries.filter(({ type }) => type === 'file')
      expect(spool.files).toBe(files.length)
      using paths = openPaths(spool.place)
      for (const i of files.keys()) {
        const file = files.length - 1 - i
        const { path, mode, size, extents } = files[file] as FileEntry
        const covered = extents.reduce((sum, { length }) => sum + length, 0)
        expect(paths.get(file)).toEqual({ path, mode, size, hasHoles: covered < size })
      }
      const directories = entries.filter(({ type }) => type === 'directory').map(({ path, mode }) => ({ path, mode }))
      expect(await collected(spool.directories())).toEqual(directories)

      using extents = openExtents(spool.place)
      const found: string[] = []
      const finished: [file: number, pack: number][] = []
      for (let pack = 0; pack < PACKS; pack += 1) {
        const { from, to } = spool.rowsOf(pack)
        const frames: number[] = []
        for (const row of extents.read(from, to)) {
          if (row.lastOfFile) finished.push([row.file, pack])
          if (row.length === 0) continue
          frames.push(row.frame)
          found.push([row.file, row.fileOffset, row.length, pack, row.frame, row.frameOffset].join())
        }
        expect(frames).toEqual(frames.toSorted((a, b) => a - b))
        const later = [...extents.read(from, to, 50)].length
        expect(later).toBe(frames.filter((frame) => frame >= 50).length)
      }
      const expected = files.flatMap((file, i) =>
        file.extents.map((e: Extent) => [i, e.fileOffset, e.length, e.pack, e.frame, e.frameOffset].join()),
      )
      expect(found.toSorted()).toEqual(expected.toSorted())
      const lastPacks = files.map((file, i) => [i, Math.max(0, ...file.extents.map(({ pack }) => pack))])
      expect(finished.toSorted(([a], [b]) => a - b)).toEqual(lastPacks)
    }),
    { numRuns: 60 },
  )
})

test('a spool that cannot be filled leaves nothing behind, and one that is done neither', async () => {
  const file: FileEntry = {
    type: 'file',
    path: 'f',
    mode: 0o600,
    modifiedAt: 0,
    size: 1,
    linkTarget: '',
    extents: [{ fileOffset: 0, length: 1, pack: PACKS, frame: 0, frameOffset: 0 }],
  }
  await expect(fill([file])).rejects.toThrow(RangeError)
  expect(await readdir(folder)).toEqual([])
  {
    await using _spool = await fill([])
    expect(await readdir(folder)).toEqual(['spool'])
  }
  expect(await readdir(folder)).toEqual([])
})
