import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import { DocumentDamagedError } from '../errors.ts'
import { seedProperties } from '../testing/seed.ts'
import { type FileEntry, decodeFileEntries, encodeFileEntry, isSafePath } from './file-list.ts'

seedProperties()

const decode = (bytes: Buffer): FileEntry[] => [...decodeFileEntries(bytes, 'the list')]

const byteText = (options: { minLength?: number; maxLength: number }): fc.Arbitrary<string> =>
  fc.uint8Array(options).map((bytes) => Buffer.from(bytes).toString('latin1'))
const path = fc.oneof(
  byteText({ minLength: 1, maxLength: 60 }).filter(isSafePath),
  fc.integer({ min: 1, max: 0xffff }).map((length) => 'x'.repeat(length)),
  fc.constantFrom('base/1/1259', '...', '..a', 'a..', ' ', '-', '\u0001', '\xff', 'a/\\..\\b'),
)
/** Sorted, apart, and each within a frame. */
const extents = fc
  .array(
    fc.record({
      gap: fc.integer({ min: 0, max: 2 ** 33 }),
      length: fc.integer({ min: 1, max: 1_048_576 }),
      pack: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
      frame: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    }),
    { maxLength: 8 },
  )
  .map((pieces) => {
    let reached = 0
    return pieces.map(({ gap, length, pack, frame }) => {
      const fileOffset = reached + gap
      reached = fileOffset + length
      return { fileOffset, length, pack, frame, frameOffset: 1_048_576 - length }
    })
  })
const common = {
  path,
  mode: fc.integer({ min: 0, max: 0o7777 }),
  modifiedAt: fc.integer({ min: -(2 ** 40), max: 2 ** 40 }),
}
const entry: fc.Arbitrary<FileEntry> = fc.oneof(
  fc.record({ ...common, extents, slack: fc.nat() }).map(({ slack, ...rest }) => {
    const last = rest.extents.at(-1)
    const size = (last === undefined ? 0 : last.fileOffset + last.length) + slack
    return { ...rest, type: 'file' as const, size, linkTarget: '' }
  }),
  fc.record(common).map((rest) => ({ ...rest, type: 'directory' as const, size: 0, linkTarget: '', extents: [] })),
  fc
    .record({ ...common, linkTarget: byteText({ maxLength: 300 }).map((text) => text.replaceAll('\0', '0')) })
    .map((rest) => ({ ...rest, type: 'symlink' as const, size: 0, extents: [] })),
)

test('any list comes back', () => {
  fc.assert(
    fc.property(fc.array(entry, { maxLength: 20 }), (entries) => {
      expect(decode(Buffer.concat(entries.map(encodeFileEntry)))).toEqual(entries)
    }),
    { numRuns: 300 },
  )
})

test('a list that is cut anywhere but between entries is refused', () => {
  fc.assert(
    fc.property(fc.array(entry, { minLength: 1, maxLength: 3 }), fc.nat(), (entries, cut) => {
      const parts = entries.map(encodeFileEntry)
      const bytes = Buffer.concat(parts)
      const length = cut % bytes.length
      let border = 0
      const borders = new Set([0, ...parts.map((part) => (border += part.length))])
      fc.pre(!borders.has(length))
      expect(() => decode(bytes.subarray(0, length))).toThrow(DocumentDamagedError)
    }),
    { numRuns: 300 },
  )
})

test('random bytes are refused or read, and never read beyond their end', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      const outcome = (() => {
        try {
          return decode(Buffer.from(bytes)).length
        } catch (error) {
          return error
        }
      })()
      expect(typeof outcome === 'number' || outcome instanceof DocumentDamagedError).toBe(true)
    }),
    { numRuns: 1000 },
  )
})

const UNSAFE = [
  '',
  '/',
  '/etc/passwd',
  '.',
  '..',
  '../x',
  'a/..',
  'a/../b',
  './a',
  'a/.',
  'a//b',
  'a/',
  '//',
  'a\0b',
  '\0',
  'base/1/../../../etc',
]

test.each(UNSAFE)('%j is no path inside a data directory: not written, and not read', (unsafe) => {
  expect(() => encodeFileEntry(file({ path: unsafe }))).toThrow(RangeError)
  // The same bytes as another writer would have put them.
  const stored = encodeFileEntry(file({ path: 'x'.repeat(unsafe.length) || 'x' }))
  stored.writeUInt16BE(unsafe.length, 20)
  stored.write(unsafe, 28, 'latin1')
  expect(() => decode(unsafe === '' ? stored.subarray(0, 28) : stored)).toThrow(DocumentDamagedError)
})

test('a name that is not one character per byte is not written', () => {
  expect(() => encodeFileEntry(file({ path: 'ū' }))).toThrow(RangeError)
  expect(() => encodeFileEntry(file({ type: 'symlink', linkTarget: '€' }))).toThrow(RangeError)
  expect(() => encodeFileEntry(file({ type: 'symlink', linkTarget: 'a\0' }))).toThrow(RangeError)
  expect(() => encodeFileEntry(file({ path: 'x'.repeat(65_536) }))).toThrow(RangeError)
})

const extent = (fileOffset: number, length: number): FileEntry['extents'][0] => ({
  fileOffset,
  length,
  pack: 0,
  frame: 0,
  frameOffset: 0,
})

test.each([
  ['overlap', [extent(0, 10), extent(9, 5)]],
  ['stand in another order', [extent(20, 5), extent(0, 5)]],
  ['are the same', [extent(0, 10), extent(0, 10)]],
  ['end beyond the size', [extent(95, 6)]],
  ['begin beyond the size', [extent(2 ** 50, 1)]],
  ['are empty', [extent(5, 0)]],
  ['cross a frame', [{ ...extent(0, 10), frameOffset: 1_048_570 }]],
])('extents that %s are refused', (_how, extents) => {
  const size = extents[0]?.frameOffset === 0 ? 100 : 1000
  expect(() => decode(encodeFileEntry(file({ size, extents })))).toThrow(DocumentDamagedError)
})

test.each([
  ['an unknown type', 0, 4],
  ['type 0', 0, 0],
  ['a set reserved byte', 1, 1],
  ['mode bits that are no permissions', 2, 0x80],
  ['a size beyond 2^53', 12, 0x20],
])('%s is refused', (_what, at, value) => {
  const stored = encodeFileEntry(file({}))
  stored.writeUInt8(value, at)
  expect(() => decode(stored)).toThrow(DocumentDamagedError)
})

test('only files have bytes, and only links a target', () => {
  for (const type of ['directory', 'symlink'] as const) {
    expect(() => decode(encodeFileEntry(file({ type, size: 1 })))).toThrow(DocumentDamagedError)
  }
  expect(() => decode(encodeFileEntry(file({ linkTarget: 'x' })))).toThrow(DocumentDamagedError)
  expect(() => decode(encodeFileEntry(file({ type: 'directory', linkTarget: 'x' })))).toThrow(DocumentDamagedError)
})

function file(fields: Partial<FileEntry>): FileEntry {
  return { type: 'file', path: 'f', mode: 0o600, modifiedAt: 0, size: 0, linkTarget: '', extents: [], ...fields }
}
