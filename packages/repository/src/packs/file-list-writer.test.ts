import { createKeyring, unsealBytes } from '@tidemark/crypto'
import { expect, test } from 'vitest'
import { TEST_KEK } from '../testing/sample-set.ts'
import { type FileEntry, decodeFileEntries } from './file-list.ts'
import { FileListWriter } from './file-list-writer.ts'

const { keyring } = createKeyring('00000000000000aa', TEST_KEK, new Date(0))
const backupId = '0011223344556677'

/** About 64 KiB each: 256 make a part. */
function entry(n: number): FileEntry {
  const path = `${n}/${'x'.repeat(65_000)}`
  return { type: 'file', path, mode: 0, modifiedAt: 0, size: 0, linkTarget: '', extents: [] }
}

test('parts are stored in order under names of their own, also when nobody waits for them', async () => {
  const stored: [string, Buffer][] = []
  const gates: (() => void)[] = []
  const store = async (name: string, bytes: Uint8Array): Promise<void> => {
    await new Promise<void>((resolve) => gates.push(resolve))
    stored.push([name, Buffer.from(bytes)])
  }
  const writer = new FileListWriter({ backupId, keyring, suite: 'aes-256-gcm', store })
  for (let n = 0; n < 600; n += 1) {
    writer.add(entry(n))
    void writer.flushFullPart()
  }
  const finished = writer.finish()
  while (stored.length < 3) {
    // The youngest first: were several under way, they would end in the wrong order.
    gates.pop()?.()
    await new Promise(setImmediate)
  }
  const parts = await finished
  expect(parts.map(({ name }) => name)).toEqual(['files-00001', 'files-00002', 'files-00003'])
  expect(stored.map(([name]) => name)).toEqual(parts.map(({ name }) => name))
  const paths = stored.flatMap(([name, bytes], i) => {
    const identity = { kind: 'file-list', backupId, ordinal: i + 1 } as const
    return [...decodeFileEntries(unsealBytes(bytes, keyring.dataKey, identity, name), name)].map(({ path }) => path)
  })
  expect(paths).toEqual(Array.from({ length: 600 }, (_, n) => entry(n).path))
})

test('a part that nobody waited for fails the end, and nothing before it', async () => {
  const failure = new Error('full')
  const store = (): Promise<void> => Promise.reject(failure)
  const writer = new FileListWriter({ backupId, keyring, suite: 'aes-256-gcm', store })
  for (let n = 0; n < 300; n += 1) {
    writer.add(entry(n))
    void writer.flushFullPart()
  }
  await new Promise(setImmediate)
  await expect(writer.finish()).rejects.toBe(failure)
})

test('an empty list is one part', async () => {
  const writer = new FileListWriter({ backupId, keyring, suite: 'aes-256-gcm', store: async () => {} })
  expect(await writer.finish()).toEqual([expect.objectContaining({ name: 'files-00001' })])
})
