import { expect, test } from 'vitest'
import {
  type Lsn,
  formatLsn,
  lsn,
  parseLsn,
  parseWalFileName,
  segmentNumber,
  segmentRange,
  segmentStart,
  walFileName,
} from './lsn.ts'

const MiB = 1_048_576
const SIZES = [MiB, 16 * MiB, 64 * MiB, 1024 * MiB]

test.each([
  ['0/0', 0n],
  ['16/B374D848', 0x16_b374_d848n],
  ['FFFFFFFF/FFFFFFFF', 2n ** 64n - 1n],
  ['1/0', 2n ** 32n],
])('%s is read and written as PostgreSQL does', (text, value) => {
  expect(parseLsn(text)).toBe(value)
  expect(formatLsn(value as Lsn)).toBe(text)
})

test('lower case and leading zeros are read', () => {
  expect(parseLsn('0016/b374d848')).toBe(0x16_b374_d848n)
})

test.each(['', '0', '/', '0/', '/0', '0/0/0', '123456789/0', '0/123456789', 'G/0', ' 0/0', '0/0 ', '-1/0'])(
  '%j is no LSN',
  (text) => expect(() => parseLsn(text)).toThrow(RangeError),
)

test('an LSN has 64 bits', () => {
  expect(lsn(2n ** 64n - 1n)).toBe(2n ** 64n - 1n)
  expect(() => lsn(2n ** 64n)).toThrow(RangeError)
  expect(() => lsn(-1n)).toThrow(RangeError)
})

test.each([
  [1, 0n, 16 * MiB, '000000010000000000000000'],
  [1, 255n, 16 * MiB, '0000000100000000000000FF'],
  [1, 256n, 16 * MiB, '000000010000000100000000'],
  [0xa, 4095n, MiB, '0000000A0000000000000FFF'],
  [0xa, 4096n, MiB, '0000000A0000000100000000'],
  [0xffff_ffff, 7n, 1024 * MiB, 'FFFFFFFF0000000100000003'],
])('timeline %i, segment %i of %i bytes is %s', (timeline, segment, segmentBytes, name) => {
  expect(walFileName(timeline, segment, segmentBytes)).toBe(name)
  expect(parseWalFileName(name, segmentBytes)).toEqual({ timeline, segment })
})

test('segment names are read back for every segment size, far into the log', () => {
  for (const segmentBytes of SIZES) {
    for (const segment of [0n, 1n, 2n ** 20n, 2n ** 33n, 2n ** 64n / BigInt(segmentBytes) - 1n]) {
      const name = walFileName(3, segment, segmentBytes)
      expect(name).toHaveLength(24)
      expect(parseWalFileName(name, segmentBytes)).toEqual({ timeline: 3, segment })
    }
  }
})

test.each([
  '',
  '00000001000000000000000',
  '0000000100000000000000000',
  '00000001000000000000000g',
  '00000001000000000000000a',
  '000000010000000000000100',
  '00000001.history',
  '000000010000000000000001.partial',
])('%j is no segment name', (name) => expect(() => parseWalFileName(name, 16 * MiB)).toThrow(RangeError))

test('a segment begins at its first byte', () => {
  for (const segmentBytes of SIZES) {
    expect(segmentNumber(segmentStart(7n, segmentBytes), segmentBytes)).toBe(7n)
    expect(segmentNumber((segmentStart(7n, segmentBytes) - 1n) as Lsn, segmentBytes)).toBe(6n)
  }
})

test('a stop at the first byte of a segment does not need that segment', () => {
  const at = (segment: bigint, offset = 0n): Lsn => (segmentStart(segment, MiB) + offset) as Lsn
  expect(segmentRange(at(5n, 40n), at(7n), MiB)).toEqual({ first: 5n, last: 6n })
  expect(segmentRange(at(5n, 40n), at(7n, 1n), MiB)).toEqual({ first: 5n, last: 7n })
  expect(segmentRange(at(5n), at(5n), MiB)).toEqual({ first: 5n, last: 5n })
  expect(segmentRange(at(5n), at(6n), MiB)).toEqual({ first: 5n, last: 5n })
})
