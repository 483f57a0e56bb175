/** What a dead attempt left is used by the next one, where it is proven, and by nobody else. */
import * as fc from 'fast-check'
import { StoreUnavailableError } from '@tidemark/storage'
import { ManualClock } from '@tidemark/storage/testing'
import { expect, test } from 'vitest'
import type { BackupWriter } from '../backup-writer.ts'
import { ClusterLayout } from '../layout.ts'
import { AdoptedFrames } from '../packs/adopted-frames.ts'
import type { Repository } from '../set/repository.ts'
import {
  CLUSTER,
  SYSTEM_ID,
  type SampleSet,
  type WriteOptions,
  newSampleSet,
  readBackup,
  writeBackup,
} from '../testing/sample-set.ts'
import { type SampleFile, sampleBytes, sampleFile } from '../testing/sample-tree.ts'
import { seedProperties } from '../testing/seed.ts'

seedProperties()

const MiB = 1_048_576
const HOUR_MS = 3_600_000
const layout = new ClusterLayout(CLUSTER, SYSTEM_ID)
const operationId = 'one-operation'
/** 20 MiB that do not compress, and a few small files. */
const tree = [
  ...Array.from({ length: 10 }, (_, i) => sampleFile(`base/${i}`, 2 * MiB)),
  ...Array.from({ length: 20 }, (_, i) => sampleFile(`small/${i}`, 3_000 + i)),
]

class Killed extends Error {}

/** An attempt that dies once it has stored these files; what is left is what a kill leaves. @returns its id. */
async function dieAfter(
  sample: SampleSet,
  files: readonly SampleFile[],
  options: WriteOptions & { readonly adopted?: number } = {},
): Promise<string> {
  let id = ''
  const death = writeBackup(sample, files, {
    operationId,
    ...options,
    beforeCommit: async (writer: BackupWriter) => {
      id = writer.backupId
      const stored = (): number => sample.stores[0]?.names(layout.base(id)).length ?? 0
      // Packs of 1 MiB with one frame each: all but the open one are stored sooner or later.
      const large = files.filter(({ bytes }) => bytes.length >= 262_144)
      const frames = large.reduce((sum, { bytes }) => sum + Math.ceil(bytes.length / MiB), -(options.adopted ?? 0))
      while (stored() < frames) await new Promise(setImmediate)
      throw new Killed()
    },
  })
  await expect(death).rejects.toThrow(Killed)
  return id
}

const bytesStored = ({ stores }: SampleSet, i = 0): number =>
  stores[i]?.names(layout.bases).reduce((sum, name) => sum + (stores[i]?.bytesOf(name)?.length ?? 0), 0) ?? 0

async function expectWhole(sample: SampleSet, record: Parameters<typeof readBackup>[1]): Promise<void> {
  for (const repository of sample.set.repositories) {
    const files = await readBackup(repository, record, sample.keys.keyring)
    expect(files.map(({ path, bytes }) => [path, bytes.length])).toEqual(
      tree.map(({ path, bytes }) => [path, bytes.length]),
    )
    for (const [i, { bytes }] of files.entries()) expect(bytes.equals(tree[i]?.bytes ?? Buffer.alloc(0))).toBe(true)
  }
}

test('after a kill at 80 % the next attempt stores less than half of a fresh one', async () => {
  const fresh = await newSampleSet([true, true])
  await writeBackup(fresh, tree)
  const sample = await newSampleSet([true, true])
  const dead = await dieAfter(sample, tree.slice(0, 8))
  const before = bytesStored(sample)
  const { record, backupId } = await writeBackup(sample, tree, { operationId })
  const stored = bytesStored(sample) - before

  process.stderr.write(`stored after a kill at 80 %: ${stored} of ${bytesStored(fresh)} bytes\n`)
  expect(stored).toBeLessThan(bytesStored(fresh) / 2)
  expect(stored).toBeLessThan(bytesStored(fresh) * 0.25)
  expect(record.parents).toEqual([dead])
  expect(record.totals.sharedBytes).toBeGreaterThan(15 * MiB)
  expect(record.totals.storedBytes).toBeLessThan(6 * MiB)
  const begin = JSON.parse(sample.stores[0]?.bytesOf(layout.begin(backupId, 0))?.toString().split('\n')[0] ?? '') as {
    parents: string[]
  }
  expect(begin.parents).toEqual([dead])
  await expectWhole(sample, record)
}, 60_000)

test('an attempt may adopt from several that died before it', async () => {
  const sample = await newSampleSet()
  const first = await dieAfter(sample, tree.slice(0, 4))
  const second = await dieAfter(sample, tree.slice(0, 8), { adopted: 8 })
  const { record } = await writeBackup(sample, tree, { operationId })
  expect(record.parents.toSorted()).toEqual([first, second].toSorted())
  await expectWhole(sample, record)
}, 60_000)

test('a repository that lacks the packs is given them; one that has others of that name keeps them from being adopted', async () => {
  const sample = await newSampleSet([true, true])
  const dead = await dieAfter(sample, tree.slice(0, 8))
  const names = sample.stores[1]?.names(layout.base(dead)) ?? []
  sample.stores[1]?.lose(names[0] ?? '')
  sample.stores[1]?.corrupt(names[1] ?? '', (bytes) => void (bytes[5_000] = (bytes[5_000] ?? 0) ^ 1))
  const { record } = await writeBackup(sample, tree, { operationId })
  expect(
    sample.stores[1]?.bytesOf(names[0] ?? '')?.equals(sample.stores[0]?.bytesOf(names[0] ?? '') ?? Buffer.alloc(0)),
  ).toBe(true)
  expect(record.totals.sharedBytes).toBeGreaterThan(12 * MiB)
  await expectWhole(sample, record)
}, 60_000)

test('a damaged pack is not adopted, wherever the damage is', async () => {
  for (const byte of [0, 20, 140, 170, 900_000, -20, -1]) {
    const sample = await newSampleSet()
    const dead = await dieAfter(sample, tree.slice(0, 1))
    const [name = ''] = sample.stores[0]?.names(layout.base(dead)) ?? []
    sample.stores[0]?.corrupt(name, (bytes) => {
      const at = byte < 0 ? bytes.length + byte : byte
      bytes[at] = (bytes[at] ?? 0) ^ 4
    })
    const { record } = await writeBackup(sample, tree.slice(0, 1), { operationId })
    expect(record.totals.sharedBytes).toBeLessThan(1.1 * MiB)
    await readBackup(sample.set.repositories[0] as Repository, record, sample.keys.keyring)
  }
}, 60_000)

test.each([0, 1])(
  'a pack that is longer in repository %i than it was written is not adopted, and does not stop the operation',
  async (where) => {
    const sample = await newSampleSet([true, true])
    const dead = await dieAfter(sample, tree.slice(0, 8))
    const store = sample.stores[where]
    for (const name of store?.names(layout.base(dead)).slice(0, 3) ?? [])
      store?.corrupt(name, (bytes) => Buffer.concat([bytes, Buffer.from('longer')]))
    const { record } = await writeBackup(sample, tree, { operationId })
    expect(record.totals.sharedBytes).toBeGreaterThan(8 * MiB)
    await expectWhole(sample, record)
  },
  60_000,
)

test("another operation's packs are not adopted, nor those that a sweep may have begun on", async () => {
  const storeClock = new ManualClock()
  const sample = await newSampleSet([true], undefined, storeClock)
  await dieAfter(sample, tree.slice(0, 2), { operationId: 'another' })
  await dieAfter(sample, tree.slice(0, 2))
  storeClock.advance(12 * HOUR_MS)
  const late = await writeBackup(sample, tree.slice(0, 2), { operationId })
  expect([late.record.parents, late.record.totals.sharedBytes]).toEqual([[], 0])
  await dieAfter(sample, tree.slice(0, 3), { operationId: 'third' })
  storeClock.advance(12 * HOUR_MS - 1)
  const timely = await writeBackup(sample, tree.slice(0, 3), { operationId: 'third' })
  expect(timely.record.parents).toHaveLength(1)
}, 60_000)

test.each([
  [true, 'REQUIRED_REPOSITORY_FAILED'],
  [false, 'stored, dropped'],
])(
  'a repository that fails while packs are adopted (required: %s): %s',
  async (required, expected) => {
    const sample = await newSampleSet([true, required])
    const dead = await dieAfter(sample, tree.slice(0, 8))
    sample.stores[1]?.faults.always('list', new StoreUnavailableError('list', 'memory://1'), { name: new RegExp(dead) })
    const outcome = await writeBackup(sample, tree, { operationId }).then(
      ({ repositories }) => repositories.map(({ outcome }) => outcome).join(', '),
      (error: { code?: string }) => error.code,
    )
    expect(outcome).toBe(expected)
  },
  60_000,
)

test('a pack that vanishes after it was adopted keeps the record from being written', async () => {
  const sample = await newSampleSet()
  const dead = await dieAfter(sample, tree.slice(0, 8))
  const next = writeBackup(sample, tree, {
    operationId,
    beforeCommit: () => sample.stores[0]?.lose(sample.stores[0].names(layout.base(dead))[3] ?? ''),
  })
  await expect(next).rejects.toMatchObject({ cause: { code: 'BACKUP_FOLDER_MISMATCH' } })
  expect(sample.stores[0]?.names(layout.records)).toEqual([])
}, 60_000)

test('the shared table finds exactly what was put in, up to its room', () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.integer({ min: 0, max: 500 }), fc.integer({ min: 0, max: MiB })), { maxLength: 300 }),
      (frames) => {
        const table = AdoptedFrames.withRoomFor(200)
        const known = new Map<string, { pack: number; frame: number; length: number }>()
        let full = false
        for (const [i, [seed, length]] of frames.entries()) {
          const digest = sampleBytes(`frame ${seed}`, 32, true).subarray(0, 16)
          const added = table.add(digest, length, i, i + 1)
          if (!added) full = true
          else if (!known.has(digest.toString('hex')))
            known.set(digest.toString('hex'), { pack: i, frame: i + 1, length })
        }
        const seen = new AdoptedFrames(table.shared)
        for (let seed = 0; seed <= 500; seed += 1) {
          const digest = sampleBytes(`frame ${seed}`, 32, true).subarray(0, 16)
          const expected = known.get(digest.toString('hex'))
          const length = expected?.length ?? 1
          expect(seen.find(digest, length)).toEqual(expected && { pack: expected.pack, frame: expected.frame })
          expect(seen.find(digest, length + 1)).toBeUndefined()
        }
        expect(full).toBe(false)
      },
    ),
    { numRuns: 20 },
  )
  const small = AdoptedFrames.withRoomFor(10)
  const added = Array.from({ length: 40 }, (_, i) => small.add(sampleBytes(`x${i}`, 32, true).subarray(0, 16), 1, 0, i))
  expect(added.filter(Boolean).length).toBeGreaterThanOrEqual(10)
  expect(added.at(-1)).toBe(false)
})
