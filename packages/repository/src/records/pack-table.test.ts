/** Pack tables at the size of a backup of 2 TB: 130,000 packs and hundreds of thousands of WAL names. */
import { createHash } from 'node:crypto'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import * as fc from 'fast-check'
import { walFileName } from '@tidemark/kernel'
import { expect, test } from 'vitest'
import { DocumentDamagedError } from '../errors.ts'
import { packName } from '../layout.ts'
import { seedProperties } from '../testing/seed.ts'
import { PackList } from './pack-list.ts'
import { type PackEntry, type PackTable, PackTableDecoder, encodePackTable } from './pack-table.ts'
import { WalList } from './wal-list.ts'

seedProperties()

const MiB = 1_048_576
const hex = (text: string, bytes = 32): string =>
  createHash('sha256')
    .update(text)
    .digest('hex')
    .slice(0, 2 * bytes)
const part = (name: string) => ({ name, bytes: 4096, sha256: hex(name), salt: hex(`salt ${name}`) })
const packEntry = (ordinal: number, backup?: string): PackEntry => ({
  ...part(packName(ordinal)),
  ...(backup === undefined ? {} : { backup }),
})
const walName = (timeline: number, segment: number): string => {
  const file = walFileName(timeline, BigInt(segment), 16 * MiB)
  return `wal/${file.slice(0, 8)}/${file.slice(8, 16)}/${file}-${hex(file, 16)}`
}

function tableOf(packs: Iterable<PackEntry>, wal: Iterable<string>): PackTable {
  return {
    backupId: '0011223344556677',
    packs: PackList.of(packs),
    fileList: [part('files-00001')],
    source: { ...part('source'), name: 'source', streamId: hex('stream', 16) },
    wal: WalList.of(wal),
    history: [`wal/00000002.history-${hex('history', 16)}`],
  }
}

function decode(bytes: Buffer, pieceBytes = bytes.length): PackTable {
  const decoder = new PackTableDecoder('the table')
  for (let at = 0; at < bytes.length; at += pieceBytes) {
    // As a reader of pieces does it: the piece is not valid any more after the call.
    const piece = Buffer.from(bytes.subarray(at, at + pieceBytes))
    decoder.write(piece)
    piece.fill(0)
  }
  return decoder.end()
}

const plain = ({ packs, wal, ...rest }: PackTable): unknown => ({ ...rest, packs: [...packs], wal: [...wal] })

test('any table comes back as it was, whatever the pieces it is read in', () => {
  const ordinals = fc.uniqueArray(fc.integer({ min: 1, max: 200_000 }), { maxLength: 30 })
  const folder = fc.constantFrom(undefined, 'aaaaaaaaaaaaaaaa', 'bbbbbbbbbbbbbbbb')
  const segments = fc.uniqueArray(fc.integer({ min: 0, max: 5_000 }), { maxLength: 30 })
  fc.assert(
    fc.property(
      ordinals,
      folder,
      segments,
      fc.integer({ min: 1, max: 700 }),
      (ordinals, folder, segments, pieceBytes) => {
        const packs = ordinals.map((ordinal, i) => packEntry(ordinal, i % 3 === 0 ? folder : undefined))
        const names = segments.toSorted((a, b) => a - b).map((segment) => walName(1, segment))
        const table = tableOf(packs, names)
        const decoded = decode(encodePackTable(table), pieceBytes)
        expect(plain(decoded)).toEqual(plain(table))
        expect([...decoded.packs.entries()]).toEqual(packs.map((pack, i) => [i, pack]))
        for (const [i, { backup, name }] of packs.entries()) expect(decoded.packs.indexOf(backup, name)).toBe(i)
        expect(decoded.packs.indexOf('cccccccccccccccc', 'pack-00001')).toBe(-1)
        expect(decoded.packs.indexOf(undefined, 'pack-1')).toBe(-1)
        expect(decoded.packs.at(packs.length)).toBeUndefined()
      },
    ),
    { numRuns: 60 },
  )
})

const good = encodePackTable(tableOf([packEntry(1)], [walName(1, 1), walName(1, 2)])).toString()
test.each([
  ['cut short', good.slice(0, -3)],
  ['without its end', good.replace(/\{"end".*\n/, '')],
  ['with a wrong count', good.replace(/"end":\d+/, '"end":4')],
  ['with lines after its end', `${good}{"wal":"${walName(1, 3)}"}\n`],
  ['with an unknown kind of line', good.replace('{"wal"', '{"walrus"')],
  ['with lines of kinds out of order', good.replace(/(\{"pack".*\n)(\{"fileList".*\n)/, '$2$1')],
  ['with two source documents', good.replace(/(\{"source".*\n)/, '$1$1')],
  ['with WAL out of order', good.replace(/(\{"wal".*\n)(\{"wal".*\n)/, '$2$1')],
  ['with WAL twice', good.replace(/(\{"wal".*\n)(\{"wal".*\n)/, '$1$1')],
  ['with WAL in the folder of another log file', good.replace('wal/00000001/00000000/', 'wal/00000001/00000001/')],
  ['with a pack of another spelling', good.replace('pack-00001', 'pack-000001')],
  ['with a pack of ordinal 0', good.replace('pack-00001', 'pack-00000')],
  ['with a pack larger than any', good.replace('"bytes":4096', '"bytes":4294967296')],
  ['with a line that has no end', `${good.slice(0, 100)}${'x'.repeat(5000)}`],
  ['empty', ''],
])('a table %s is refused', (_what, text) => {
  expect(() => decode(Buffer.from(text), 300)).toThrow(DocumentDamagedError)
})

function* manyPacks(): Generator<PackEntry> {
  for (let ordinal = 1; ordinal <= 130_000; ordinal += 1) yield packEntry(ordinal)
}

function* manySegments(): Generator<string> {
  for (let segment = 0; segment < 300_000; segment += 1) yield walName(1, segment)
}

test('130,000 packs and 300,000 WAL names are held in less than 24 MiB', async () => {
  setFlagsFromString('--expose-gc')
  const gc = runInNewContext('gc') as () => void
  const heldBytes = async (): Promise<number> => {
    // Buffers go only after the objects that hold them have.
    for (let i = 0; i < 4; i += 1) {
      gc()
      await new Promise(setImmediate)
    }
    const { heapUsed, arrayBuffers } = process.memoryUsage()
    return heapUsed + arrayBuffers
  }
  const before = await heldBytes()
  const table = tableOf(manyPacks(), manySegments())
  const written = (await heldBytes()) - before
  const bytes = encodePackTable(table)
  const beforeReading = await heldBytes()
  const read = decode(bytes, 4 * MiB)
  const readBytes = (await heldBytes()) - beforeReading

  expect(read.packs.length).toBe(130_000)
  expect(read.packs.indexOf(undefined, packName(129_999))).toBe(129_998)
  expect(read.wal.at(299_999)).toBe(walName(1, 299_999))
  expect(written).toBeLessThan(24 * MiB)
  expect(readBytes).toBeLessThan(24 * MiB)
  process.stderr.write(
    `pack table of 430,000 lines: ${bytes.length} bytes; held ${written} written, ${readBytes} read\n`,
  )
}, 60_000)
