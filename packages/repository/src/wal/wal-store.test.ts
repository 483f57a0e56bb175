import { createHash } from 'node:crypto'
import { keyedDigest, sealBytes } from '@tidemark/crypto'
import { expect, test } from 'vitest'
import { DocumentDamagedError, WalSegmentConflictError } from '../errors.ts'
import type { Repository } from '../set/repository.ts'
import { CLUSTER, SEGMENT_BYTES, SYSTEM_ID, type SampleSet, newSampleSet, noDeadline } from '../testing/sample-set.ts'
import { sampleBytes } from '../testing/sample-tree.ts'
import { WalList } from '../records/wal-list.ts'
import { WalLayout, missingWal, readWalSegment, storeWalSegment } from './wal-store.ts'

const wal = new WalLayout(CLUSTER, SYSTEM_ID)
const position = { timeline: 1, segment: 7n, segmentBytes: SEGMENT_BYTES }

function seal(
  { keys }: SampleSet,
  bytes: Uint8Array,
  at = position,
): { sealed: Buffer; digest: string; sha256: string } {
  const digest = keyedDigest(keys.keyring.digestKey, 'wal', bytes).toString('hex')
  const sealed = sealBytes(bytes, {
    suite: 'aes-256-gcm',
    dataKey: keys.keyring.writeKey,
    compressionLevel: 1,
    identity: { kind: 'wal', systemId: wal.systemId, ...at, from: 0, to: bytes.length, digest },
  })
  return { sealed, digest, sha256: createHash('sha256').update(sealed).digest('hex') }
}

const names = ({ stores }: SampleSet): string[] => stores[0]?.names(`${wal.layout.folder}wal/`) ?? []
const only = ({ set }: SampleSet): Repository => set.repositories[0] as Repository
const read = (sample: SampleSet, name: string): ReturnType<typeof readWalSegment> =>
  readWalSegment(
    only(sample),
    wal,
    name.slice(wal.layout.folder.length),
    SEGMENT_BYTES,
    sample.keys.keyring,
    noDeadline,
  )

test('the same segment again, sealed anew, changes nothing', async () => {
  const sample = await newSampleSet()
  const bytes = sampleBytes('a', SEGMENT_BYTES, true)
  await storeWalSegment(only(sample), wal, position, seal(sample, bytes), sample.keys.keyring, noDeadline)
  const [name = ''] = names(sample)
  const before = sample.stores[0]?.bytesOf(name)
  await storeWalSegment(only(sample), wal, position, seal(sample, bytes), sample.keys.keyring, noDeadline)
  expect(names(sample)).toEqual([name])
  expect(sample.stores[0]?.bytesOf(name)).toEqual(before)
  expect((await read(sample, name)).bytes).toEqual(bytes)
})

test('a second primary cannot replace an archived segment, and both contents are kept', async () => {
  const sample = await newSampleSet()
  const [ours, theirs] = [sampleBytes('a', SEGMENT_BYTES, true), sampleBytes('b', SEGMENT_BYTES, true)]
  await storeWalSegment(only(sample), wal, position, seal(sample, ours), sample.keys.keyring, noDeadline)
  for (const bytes of [theirs, theirs, ours]) {
    await expect(
      storeWalSegment(only(sample), wal, position, seal(sample, bytes), sample.keys.keyring, noDeadline),
    ).rejects.toThrow(WalSegmentConflictError)
  }
  const kept = await Promise.all(names(sample).map(async (name) => (await read(sample, name)).bytes))
  expect(kept).toHaveLength(2)
  expect(kept).toEqual(expect.arrayContaining([ours, theirs]))
})

test('neighbouring segments and timelines are no conflict', async () => {
  const sample = await newSampleSet()
  for (const at of [
    position,
    { ...position, segment: 8n },
    { ...position, segment: 112n },
    { ...position, timeline: 2 },
  ]) {
    const bytes = sampleBytes(`${at.timeline}/${at.segment}`, SEGMENT_BYTES, false)
    await storeWalSegment(only(sample), wal, at, seal(sample, bytes, at), sample.keys.keyring, noDeadline)
  }
  expect(names(sample)).toHaveLength(4)
})

test('a segment under the name of another, of another cluster, or with another digest is refused', async () => {
  const sample = await newSampleSet()
  const store = sample.stores[0]
  const bytes = sampleBytes('a', SEGMENT_BYTES, true)
  const { sealed, digest } = seal(sample, bytes)
  const put = async (name: string): Promise<string> => {
    await store?.put(name, sealed, { signal: noDeadline })
    return name
  }
  const next = await put(wal.objectName({ ...position, segment: 8n }, digest))
  await expect(read(sample, next)).rejects.toMatchObject({ code: 'SEAL_IDENTITY' })
  const other = await put(wal.objectName(position, 'ab'.repeat(16)))
  await expect(read(sample, other)).rejects.toMatchObject({ code: 'SEAL_IDENTITY' })
  const elsewhere = new WalLayout(CLUSTER, '1')
  const moved = await put(elsewhere.objectName(position, digest))
  await expect(
    readWalSegment(
      only(sample),
      elsewhere,
      moved.slice(elsewhere.layout.folder.length),
      SEGMENT_BYTES,
      sample.keys.keyring,
      noDeadline,
    ),
  ).rejects.toMatchObject({ code: 'SEAL_IDENTITY' })
})

test('a segment whose contents are not those its name says is damaged, even under a tag that holds', async () => {
  const sample = await newSampleSet()
  const { digest } = seal(sample, sampleBytes('a', SEGMENT_BYTES, true))
  const sealOther = (bytes: Buffer): Buffer =>
    sealBytes(bytes, {
      suite: 'aes-256-gcm',
      dataKey: sample.keys.keyring.writeKey,
      compressionLevel: 0,
      identity: { kind: 'wal', systemId: wal.systemId, ...position, from: 0, to: SEGMENT_BYTES, digest },
    })
  const name = wal.objectName(position, digest)
  for (const bytes of [sampleBytes('b', SEGMENT_BYTES, true), Buffer.alloc(10)]) {
    await sample.stores[0]?.put(name, sealOther(bytes), { signal: noDeadline })
    await expect(read(sample, name)).rejects.toThrow(DocumentDamagedError)
  }
})

test('exactly the missing names are found, over folders, with one listing each', async () => {
  const sample = await newSampleSet()
  const store = sample.stores[0]
  const wanted: string[] = []
  for (let i = 0; i < 40; i += 1) {
    const segment = BigInt(i) * 3_000n
    wanted.push(wal.objectName({ timeline: 1 + (i % 2), segment, segmentBytes: 1_048_576 }, 'ab'.repeat(16)))
  }
  wanted.push(wal.layout.timelineHistory(2, 'cd'.repeat(16)))
  const relative = wanted.map((name) => name.slice(wal.layout.folder.length))
  const table = { wal: WalList.of(relative.slice(0, -1)).sorted(), history: relative.slice(-1) }
  expect(await missingWal(only(sample), wal.layout, table, noDeadline)).toHaveLength(41)
  for (const [i, name] of wanted.entries()) {
    if (i % 3 !== 0) await store?.put(name, Buffer.alloc(i % 3 === 1 ? 189 : 188), { signal: noDeadline })
  }
  const missing = await missingWal(only(sample), wal.layout, table, noDeadline)
  expect(missing.toSorted()).toEqual(relative.filter((_, i) => i % 3 !== 1).toSorted())
  expect(await missingWal(only(sample), wal.layout, { wal: new WalList(), history: [] }, noDeadline)).toEqual([])
})
