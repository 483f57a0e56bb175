import { SealRefusedError, StreamSealer, createKeyring } from '@tidemark/crypto'
import { expect, test } from 'vitest'
import { TEST_KEK } from '../testing/sample-set.ts'
import { PackReader } from './pack-reader.ts'

const { keyring } = createKeyring('00000000000000aa', TEST_KEK, new Date(0))
const place = { backupId: '0011223344556677', ordinal: 3 }
const frames = ['one', 'two', 'three'].map((text) => Buffer.from(text))

/** A small pack as section 3 says; tests change its table or trailer. */
function packOf(change: {
  table?: (table: Buffer) => Buffer
  trailer?: (trailer: Buffer) => void
  flags?: object
}): Buffer {
  const sealer = new StreamSealer({
    suite: 'aes-256-gcm',
    dataKey: keyring.writeKey,
    identity: { kind: 'pack', ...place },
    compressionLevel: 0,
  })
  const parts: Buffer[] = [sealer.header.bytes]
  const table = Buffer.alloc(frames.length * 24)
  const length = (): number => Buffer.concat(parts).length
  for (const [i, frame] of frames.entries()) {
    table.writeUInt32BE(length(), i * 24)
    table.writeUInt32BE(frame.length, i * 24 + 4)
    parts.push(...sealer.seal(frame).parts)
  }
  const trailer = Buffer.alloc(8)
  trailer.writeUInt32BE(length(), 0)
  trailer.writeUInt32BE(frames.length, 4)
  change.trailer?.(trailer)
  parts.push(
    ...sealer.seal(change.table?.(table) ?? table, { last: true, table: true, ...change.flags }).parts,
    trailer,
  )
  return Buffer.concat(parts)
}

const open = (stored: Buffer): PackReader => new PackReader(stored, place, keyring.dataKey, 'the pack')

test('every frame is read, in any order', () => {
  const reader = open(packOf({}))
  expect(reader.frames).toBe(3)
  for (const i of [2, 0, 1, 1]) expect(reader.open(i)).toEqual(frames[i])
})

test('every flip of one bit is refused: at once, or when its frame is opened', () => {
  const stored = packOf({})
  for (let bit = 0; bit < stored.length * 8; bit += 1) {
    const changed = Buffer.from(stored)
    changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7))
    expect(() => {
      const reader = open(changed)
      for (const [i, frame] of frames.entries()) expect(reader.open(i)).toEqual(frame)
    }).toThrow(expect.objectContaining({ code: expect.stringMatching(/^SEAL_|^KEY_UNKNOWN$/) }))
  }
})

test('every truncation, and anything appended, is refused', () => {
  const stored = packOf({})
  for (let length = 0; length < stored.length; length += 1) {
    expect(() => open(stored.subarray(0, length))).toThrow(SealRefusedError)
  }
  expect(() => open(Buffer.concat([stored, Buffer.alloc(1)]))).toThrow(SealRefusedError)
  expect(() => open(Buffer.concat([stored, stored.subarray(-8)]))).toThrow(SealRefusedError)
})

test('a pack under the name of another is refused', () => {
  const stored = packOf({})
  for (const other of [
    { ...place, ordinal: 4 },
    { ...place, backupId: '0011223344556678' },
  ]) {
    expect(() => new PackReader(stored, other, keyring.dataKey, 'it')).toThrow(
      expect.objectContaining({ code: 'SEAL_IDENTITY' }),
    )
  }
})

test('a false trailer leads nowhere', () => {
  for (const offset of [0, 1, 159, 160, 161, 0xffff_ffff]) {
    expect(() => open(packOf({ trailer: (trailer) => trailer.writeUInt32BE(offset, 0) }))).toThrow(SealRefusedError)
  }
  for (const count of [0, 2, 4, 0xffff_ffff]) {
    expect(() => open(packOf({ trailer: (trailer) => trailer.writeUInt32BE(count, 4) }))).toThrow(SealRefusedError)
  }
})

test('a table that its own writer made wrong does not lead to other plaintext', () => {
  const swapped = open(packOf({ table: (t) => Buffer.concat([t.subarray(24, 48), t.subarray(0, 24), t.subarray(48)]) }))
  expect(() => swapped.open(0)).toThrow(SealRefusedError)
  expect(swapped.open(2)).toEqual(frames[2])
  const beyond = open(packOf({ table: (t) => (t.writeUInt32BE(0xffff_fff0, 0), t) }))
  expect(() => beyond.open(0)).toThrow(SealRefusedError)
  const longer = open(packOf({ table: (t) => (t.writeUInt32BE(4, 4), t) }))
  expect(() => longer.open(0)).toThrow(SealRefusedError)
  expect(() => open(packOf({ table: (t) => t.subarray(24) }))).toThrow(SealRefusedError)
  expect(() => open(packOf({ flags: { last: false } }))).toThrow(SealRefusedError)
  expect(() => open(packOf({ flags: { table: false } }))).toThrow(SealRefusedError)
  expect(() => open(packOf({})).open(3)).toThrow(SealRefusedError)
})
