import { randomBytes } from 'node:crypto'
import { setImmediate } from 'node:timers/promises'
import { pack } from 'tar-stream'
import { expect, test } from 'vitest'
import { StreamMalformedError } from './errors.ts'
import { TarReader, parseTarHeader, type TarEntry } from './tar-reader.ts'

/** An archive made by an independent writer. */
async function archiveOf(
  files: { name: string; body?: Buffer; type?: 'directory' | 'symlink'; linkname?: string }[],
): Promise<Buffer> {
  const archive = pack()
  for (const { body, ...header } of files)
    archive.entry({ mode: 0o600, mtime: new Date(1_700_000_000_000), ...header }, body ?? Buffer.alloc(0))
  archive.finalize()
  const chunks: Buffer[] = []
  for await (const chunk of archive) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

async function read(
  archive: Buffer,
  chunkBytes: number,
  pause = false,
): Promise<{ entry: TarEntry; body: Buffer; ended: boolean }[]> {
  const found: { entry: TarEntry; body: Buffer; ended: boolean }[] = []
  const wait = pause ? () => setImmediate() : () => undefined
  const reader = new TarReader({
    onEntry: (entry) => (found.push({ entry, body: Buffer.alloc(0), ended: false }), wait()),
    onContent: (chunk) => {
      const last = found.at(-1)
      if (last) last.body = Buffer.concat([last.body, chunk])
      return wait()
    },
    onContentEnd: () => {
      const last = found.at(-1)
      if (last) last.ended = true
      return wait()
    },
  })
  for (let at = 0; at < archive.length; at += chunkBytes) await reader.write(archive.subarray(at, at + chunkBytes))
  reader.end()
  return found
}

const big = randomBytes(20_000)
const files = [
  { name: 'base', type: 'directory' as const },
  { name: 'base/1', body: big },
  { name: 'base/empty', body: Buffer.alloc(0) },
  { name: 'base/512', body: randomBytes(512) },
  { name: 'pg_wal', type: 'symlink' as const, linkname: '/wal' },
]

test.each([1, 7, 511, 512, 513, 32_768])(
  'entries come out the same from chunks of %i bytes, awaited or not',
  async (chunkBytes) => {
    const archive = await archiveOf(files)
    for (const pause of [false, true]) {
      const found = await read(archive, chunkBytes, pause)
      expect(found.map(({ entry, ended }) => [entry.path, entry.type, entry.size, ended])).toEqual([
        ['base', 'directory', 0, false],
        ['base/1', 'file', 20_000, true],
        ['base/empty', 'file', 0, true],
        ['base/512', 'file', 512, true],
        ['pg_wal', 'symlink', 0, false],
      ])
      expect(found[1]?.body.equals(big)).toBe(true)
      expect(found[1]?.entry).toMatchObject({ mode: 0o600, mtime: 1_700_000_000 })
      expect(found[4]?.entry.linkTarget).toBe('/wal')
    }
  },
)

test('an archive without its two zero blocks is refused', async () => {
  const archive = await archiveOf(files)
  await expect(read(archive.subarray(0, -512), 4096)).rejects.toThrow(StreamMalformedError)
  await expect(read(archive.subarray(0, 1000), 4096)).rejects.toThrow(StreamMalformedError)
  await expect(read(Buffer.concat([archive, Buffer.alloc(512)]), 4096)).rejects.toThrow(StreamMalformedError)
})

test('a flipped bit in a header is noticed', async () => {
  const archive = await archiveOf(files)
  archive[3] = (archive[3] ?? 0) ^ 1
  await expect(read(archive, 4096)).rejects.toThrow(/checksum/)
})

test('a name that leads outside of the data directory is refused', async () => {
  await expect(read(await archiveOf([{ name: '../../etc/passwd', body: big }]), 4096)).rejects.toThrow(/outside/)
})

function header(change: (block: Buffer) => void): Buffer {
  const block = Buffer.alloc(512)
  block.write('base/1', 0)
  block.write('0000600\0', 100)
  block.write('00000000000\0', 124)
  block.write('00000000000\0', 136)
  block.write('0', 156)
  change(block)
  block.fill(' ', 148, 156)
  const sum = block.reduce((total, byte) => total + byte, 0)
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
  return block
}

test('sizes of 8 GiB and more are read from base 256', () => {
  const block = header((bytes) => {
    bytes.fill(0, 124, 136)
    bytes[124] = 0x80
    bytes.writeBigUInt64BE(9_000_000_000n, 128)
  })
  expect(parseTarHeader(block).size).toBe(9_000_000_000)
})

test('a name that is not UTF-8 keeps its bytes', () => {
  const block = header((bytes) => bytes.write('base/caf\xe9', 0, 'latin1'))
  expect(parseTarHeader(block).pathBytes).toEqual(Buffer.from('base/caf\xe9', 'latin1'))
})
