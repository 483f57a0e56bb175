/** A backup exists whole, in every repository that says so, or it does not exist. */
import { hash } from 'node:crypto'
import * as fc from 'fast-check'
import { type Clock, abortError, randomId, silentLogger, systemClock } from '@tidemark/kernel'
import { StoreFullError, StoreUnavailableError } from '@tidemark/storage'
import { ManualClock, type StoreMethod } from '@tidemark/storage/testing'
import { afterEach, expect, test, vi } from 'vitest'
import { BackupWriter } from './backup-writer.ts'
import { BackupIncompleteError, FolderMismatchError, LeaseLostError, RequiredRepositoryError } from './errors.ts'
import { ClusterLayout } from './layout.ts'
import { readFileList } from './read-file-list.ts'
import { type ListedBackup, listBackups, readPackTable } from './records/read-records.ts'
import type { Repository } from './set/repository.ts'
import {
  CLUSTER,
  SYSTEM_ID,
  type SampleSet,
  type WriteOptions,
  liveThreads,
  newSampleSet,
  noDeadline,
  readBackup,
  sealing,
  writeBackup,
} from './testing/sample-set.ts'
import { type SampleFile, sampleBytes, sampleFile, smallTree } from './testing/sample-tree.ts'
import { seedProperties } from './testing/seed.ts'

seedProperties()

const MiB = 1_048_576
const HOUR_MS = 3_600_000
const down = (): StoreUnavailableError => new StoreUnavailableError('put', 'memory://')
const digested = (files: readonly SampleFile[]): unknown[] =>
  files.map((file) => ({ ...file, bytes: `${file.bytes.length} ${hash('sha256', file.bytes)}` }))
const SMALL_TREE = digested(smallTree())
const layout = new ClusterLayout(CLUSTER, SYSTEM_ID)

// A thread that outlives its writer would keep the process alive and hold the keys.
afterEach(() => {
  if (liveThreads() > 0) throw new Error(`${liveThreads()} sealing threads are alive`)
})

async function listed({ set }: SampleSet, i = 0): Promise<ListedBackup[]> {
  return (await listBackups(set.repositories[i] as Repository, set.publicKey, { limit: 100 }, noDeadline)).backups
}

async function filesIn({ set, keys }: SampleSet, i: number): Promise<unknown[]> {
  const page = await listBackups(set.repositories[i] as Repository, set.publicKey, { limit: 100 }, noDeadline)
  const [backup] = page.backups
  if (backup === undefined || !('record' in backup)) throw new Error('no trusted backup is listed')
  return digested(await readBackup(set.repositories[i] as Repository, backup.record, keys.keyring))
}

test.each(['aes-256-cbc-hmac-sha-256', 'aes-256-gcm'] as const)('%s: every file comes back', async (suite) => {
  const sample = await newSampleSet()
  const { record } = await writeBackup(sample, smallTree(), { sealing: { suite, threads: 2, uploads: 2 } })
  expect(await filesIn(sample, 0)).toEqual(SMALL_TREE)
  expect(record.totals).toMatchObject({ files: 37, directories: 2, links: 0 })
  expect(record.totals.bytes).toBe(smallTree().reduce((sum, { bytes }) => sum + bytes.length, 0))
})

test('random trees come back equal from each repository, whose objects are the same, byte for byte', async () => {
  const size = fc.oneof(
    { weight: 8, arbitrary: fc.integer({ min: 0, max: 40_000 }) },
    { weight: 2, arbitrary: fc.constantFrom(0, 262_143, 262_144, MiB - 1, MiB, MiB + 1) },
    { weight: 1, arbitrary: fc.integer({ min: 0, max: 3 * MiB }) },
  )
  const tree = fc.array(fc.record({ size, dense: fc.boolean() }), { maxLength: 40 })
  const settings = fc.record({
    suite: fc.constantFrom('aes-256-cbc-hmac-sha-256' as const, 'aes-256-gcm' as const),
    compressionLevel: fc.constantFrom(0, 1),
    threads: fc.integer({ min: 1, max: 2 }),
    uploads: fc.integer({ min: 1, max: 2 }),
    packBytes: fc.constantFrom(1, 70_000, MiB, 4 * MiB),
  })
  const chunkBytes = fc.integer({ min: 5_000, max: 2 * MiB })
  await fc.assert(
    fc.asyncProperty(tree, settings, chunkBytes, async (shape, settings, chunkBytes) => {
      const files = shape.map(({ size, dense }, i) => sampleFile(`f${i}`, size, dense))
      const sample = await newSampleSet([true, true])
      await writeBackup(sample, files, { sealing: settings, chunkBytes })
      expect(await filesIn(sample, 0)).toEqual(digested(files))
      const [a, b] = sample.stores
      const names = a?.names().filter((name) => name !== 'tidemark.json') ?? []
      expect(b?.names().filter((name) => name !== 'tidemark.json')).toEqual(names)
      for (const name of names) expect(a?.bytesOf(name)?.equals(b?.bytesOf(name) ?? Buffer.alloc(0))).toBe(true)
    }),
    { numRuns: 12 },
  )
}, 60_000)

test('a file below 256 KiB is never split, and a larger one is cut at multiples of 1 MiB', async () => {
  const sample = await newSampleSet()
  const files = Array.from({ length: 60 }, (_, i) => sampleFile(`f${i}`, (i * 37_573) % 262_144))
  const { record } = await writeBackup(sample, [...files, sampleFile('large', 2 * MiB + 5)])
  const [repository] = sample.set.repositories as [Repository]
  const table = await readPackTable(repository, record, noDeadline)
  for await (const entry of readFileList(repository, record, table, sample.keys.keyring.dataKey, noDeadline)) {
    const whole = entry.size === 0 ? [] : [0]
    const cuts = entry.extents.map(({ fileOffset }) => fileOffset)
    expect(cuts).toEqual(entry.path === 'large' ? [0, MiB, 2 * MiB] : whole)
  }
})

test('entries of large files do not pile up behind a small one', async () => {
  const sample = await newSampleSet()
  await writeBackup(sample, [sampleFile('small', 10), sampleFile('large', MiB)], {
    beforeCommit: async (writer) => {
      // 4,097 frames of one file of zeros, the small one's frame still open before it.
      writer.beginFile({ type: 'file', path: 'z', mode: 0, modifiedAt: 0, size: 4_097 * MiB, linkTarget: '' })
      const zeros = Buffer.alloc(8 * MiB)
      for (let i = 0; i < 512; i += 1) await writer.write(zeros)
      await writer.write(zeros.subarray(0, MiB))
      await writer.endFile()
      await vi.waitFor(() => expect(writer.totals.files).toBe(3), { timeout: 20_000 })
    },
    sealing: { threads: 2 },
  })
}, 60_000)

test('what is announced is what must come', async () => {
  const sample = await newSampleSet()
  await expect(
    writeBackup(sample, [], {
      beforeCommit: (writer) => {
        writer.beginFile({ type: 'file', path: 'f', mode: 0, modifiedAt: 0, size: 10, linkTarget: '' })
        void writer.write(Buffer.alloc(9))
        void writer.endFile()
      },
    }),
  ).rejects.toThrow(RangeError)
  await expect(
    writeBackup(sample, [], {
      beforeCommit: (writer) => {
        writer.beginFile({ type: 'file', path: 'f', mode: 0, modifiedAt: 0, size: 10, linkTarget: '' })
        void writer.write(Buffer.alloc(11))
      },
    }),
  ).rejects.toThrow(RangeError)
  expect(await listed(sample)).toEqual([])
})

test('a name that no reader would take fails the backup, not the restore', async () => {
  const sample = await newSampleSet()
  for (const path of ['../f', '/etc/passwd', 'a//b', '', 'ū']) {
    await expect(writeBackup(sample, [sampleFile(path, 10), sampleFile('after', 10)])).rejects.toThrow(RangeError)
    await expect(writeBackup(sample, [sampleFile(path, 0)])).rejects.toThrow(RangeError)
  }
  expect(await listed(sample)).toEqual([])
})

test('lent memory is bounded: a repository that stalls stops the source', async () => {
  const sample = await newSampleSet()
  const gate = Promise.withResolvers<void>()
  const [store] = sample.stores
  let accepted = 0
  let stalled = 0
  if (store !== undefined) {
    store.faults.latency = (method, name) => {
      if (method !== 'put' || name?.includes('/pack-') !== true) return undefined
      stalled += 1
      return gate.promise
    }
  }
  const total = 30 * MiB
  const settings = { ...sealing, threads: 1, uploads: 1, packBytes: MiB, compressionLevel: 0 }
  const writing = writeBackup(sample, [], {
    sealing: settings,
    beforeCommit: async (writer) => {
      writer.beginFile({ type: 'file', path: 'f', mode: 0, modifiedAt: 0, size: total, linkTarget: '' })
      const chunk = sampleBytes('chunk', 65_536, true)
      for (; accepted < total; accepted += chunk.length) await writer.write(chunk)
      await writer.endFile()
    },
  })
  // Two packs of one frame each are out, five frames are lent: what is taken beyond them has nowhere to go.
  const frames = settings.threads * 3 + 2
  const packs = settings.threads + settings.uploads
  await vi.waitFor(() => expect(stalled).toBe(packs), { timeout: 20_000 })
  await vi.waitFor(() => expect(accepted).toBeGreaterThanOrEqual((frames + packs - 1) * MiB), { timeout: 20_000 })
  for (let i = 0; i < 200; i += 1) await new Promise(setImmediate)
  expect(accepted).toBeLessThanOrEqual((frames + packs) * MiB)
  gate.resolve()
  await writing
  expect(accepted).toBe(total)
  expect(await listed(sample)).toHaveLength(1)
}, 60_000)

test.each(['pack-00001$', 'pack-00002$', 'files-00001$', 'packs.jsonl$', 'wal/', 'records/', '-1.json$'])(
  'a required repository that cannot store %s fails everything, and no record is left',
  async (pattern) => {
    const sample = await newSampleSet([true, true])
    for (const method of ['put', 'putIfAbsent'] as const)
      sample.stores[1]?.faults.always(method, new StoreFullError('put', 'memory://1'), { name: new RegExp(pattern) })
    const failed = await writeBackup(sample).catch((error: unknown) => error)
    expect(failed).toBeInstanceOf(RequiredRepositoryError)
    expect(failed).toMatchObject({ retry: 'after-operator', facts: { repository: 'b', causeCode: 'STORE_FULL' } })
    expect(await listed(sample, 1)).toEqual([])
    // Step 5 is each repository's own: only when the record alone failed does the other have one.
    expect(await listed(sample, 0)).toHaveLength(pattern === 'records/' ? 1 : 0)
  },
)

test.each(['begin/', 'pack-00002$', 'files-00001$', 'packs.jsonl$', 'wal/', 'records/'])(
  'an optional repository that cannot store %s is dropped, and the others commit',
  async (pattern) => {
    const sample = await newSampleSet([true, false])
    for (const method of ['put', 'putIfAbsent'] as const)
      sample.stores[1]?.faults.always(method, down(), { name: new RegExp(pattern) })
    const { repositories } = await writeBackup(sample)
    expect(repositories).toEqual([
      { name: 'a', outcome: 'stored' },
      { name: 'b', outcome: 'dropped', problem: expect.objectContaining({ code: 'STORE_UNAVAILABLE' }) },
    ])
    expect(await filesIn(sample, 0)).toEqual(SMALL_TREE)
    expect(await listed(sample, 1)).toEqual([])
  },
)

test('an optional repository that hangs is dropped once the run has waited for it long enough, a required one is waited for', async () => {
  const clock = new ManualClock()
  const sample = await newSampleSet([true, false], clock)
  const gate = Promise.withResolvers<void>()
  let hanging = 0
  if (sample.stores[1] !== undefined)
    sample.stores[1].faults.latency = (method, name) => {
      if (method !== 'put' || name?.includes('/pack-') !== true) return undefined
      hanging += 1
      return gate.promise
    }
  const writing = writeBackup(sample, smallTree(), { clock })
  await vi.waitFor(() => expect(hanging).toBeGreaterThan(0))
  await vi.waitFor(() => expect(clock.sleepingMs.length).toBeGreaterThan(0))
  clock.advance(600_000)
  for (let i = 0; i < 50; i += 1) await new Promise(setImmediate)
  expect(sample.stores[0]?.names(layout.records)).toEqual([])
  await vi.waitFor(() => {
    clock.advance(5_000)
    expect(sample.stores[0]?.names(layout.records)).toHaveLength(1)
  })
  expect((await writing).repositories).toEqual([
    { name: 'a', outcome: 'stored' },
    { name: 'b', outcome: 'dropped', problem: expect.objectContaining({ code: 'REPOSITORY_TOO_SLOW' }) },
  ])
  expect(await filesIn(sample, 0)).toEqual(SMALL_TREE)
  gate.resolve()
})

test.each(['records/', '.history-'])(
  'what is stored otherwise under %s is noticed, where the store does not check it',
  async (where) => {
    const sample = await newSampleSet()
    const [store] = sample.stores
    if (store !== undefined)
      store.faults.latency = (method, name) => {
        // Damaged between the put and the first look at it.
        if (method === 'get' && name?.includes(where) === true)
          store.corrupt(name, (bytes) => void (bytes[50] = (bytes[50] ?? 0) ^ 1))
      }
    await expect(writeBackup(sample, [], { timeline: 2 })).rejects.toMatchObject({
      cause: { code: 'STORED_OTHERWISE' },
    })
  },
)

test('when every optional repository has failed there is nothing left to succeed with', async () => {
  const sample = await newSampleSet([false, false])
  for (const { faults } of sample.stores) faults.always('put', down(), { name: /pack-/ })
  await expect(writeBackup(sample)).rejects.toThrow(RequiredRepositoryError)
  expect(await listed(sample)).toEqual([])
})

test('a caller who waits is told when an upload fails, in every kind of call', async () => {
  const sample = await newSampleSet()
  sample.stores[0]?.faults.always('put', down(), { name: /pack-/ })
  await using writer = await beginWriter(sample)
  writer.beginFile({ type: 'file', path: 'f', mode: 0, modifiedAt: 0, size: 200 * MiB, linkTarget: '' })
  const chunk = sampleBytes('chunk', MiB, true)
  const endless = async (): Promise<void> => {
    for (let i = 0; i < 200; i += 1) await writer.write(chunk)
  }
  await expect(endless()).rejects.toThrow(RequiredRepositoryError)
  await expect(writer.addWalSegment({ timeline: 1, segment: 7n, segmentBytes: 1024 }, chunk)).rejects.toThrow(
    RequiredRepositoryError,
  )
  await expect((async () => writer.write(chunk))()).rejects.toThrow(RequiredRepositoryError)
})

test('an abort in mid-write ends every call with its reason, and leaves no record', async () => {
  const sample = await newSampleSet()
  const stop = new AbortController()
  const reason = new LeaseLostError('0', 1)
  const failed = writeBackup(sample, smallTree(), {
    signal: stop.signal,
    beforeCommit: async (writer) => {
      writer.beginFile({ type: 'file', path: 'f', mode: 0, modifiedAt: 0, size: 200 * MiB, linkTarget: '' })
      for (let i = 0; i < 200; i += 1) {
        if (i === 5) stop.abort(reason)
        await writer.write(sampleBytes('chunk', MiB, true))
      }
    },
  })
  await expect(failed).rejects.toBe(reason)
  const before = await writeBackup(sample, [], { signal: AbortSignal.abort() }).catch((error: unknown) => error)
  expect(before).toMatchObject({ code: abortError(AbortSignal.abort(), 'it').code })
  expect(await listed(sample)).toEqual([])
})

test('a writer that is left while somebody waits does not leave him waiting', async () => {
  const sample = await newSampleSet()
  const writer = await beginWriter(sample)
  const wal = writer.addWalSegment({ timeline: 1, segment: 7n, segmentBytes: MiB }, Buffer.alloc(MiB))
  const [settled] = await Promise.allSettled([wal, writer[Symbol.asyncDispose]()])
  expect(settled).toMatchObject({ status: 'rejected', reason: { code: 'ABORTED' } })
})

test('killed between any two durable writes, a repository lists nothing, or a backup that is whole', async () => {
  const outcomes: number[][] = []
  for (let n = 1; ; n += 1) {
    const sample = await newSampleSet([true, true])
    let writes = 0
    for (const { faults } of sample.stores) {
      faults.latency = (method: StoreMethod) => {
        if (method !== 'put' && method !== 'putIfAbsent') return
        writes += 1
        // From the n-th write on, nothing arrives any more.
        if (writes >= n) throw down()
      }
    }
    const survived = await writeBackup(sample, smallTree()).then(
      () => true,
      () => false,
    )
    for (const { faults } of sample.stores) faults.clear()
    const found: number[] = []
    for (const [i] of sample.stores.entries()) {
      const backups = await listed(sample, i)
      found.push(backups.length)
      expect(backups.length === 0 ? SMALL_TREE : await filesIn(sample, i)).toEqual(SMALL_TREE)
    }
    outcomes.push(found)
    if (survived) break
  }
  expect(outcomes.length).toBeGreaterThan(15)
  // The last write but one leaves it in one repository, none before it does.
  expect(outcomes.map((found) => found[0] ?? 0).filter((count) => count > 0).length).toBeLessThanOrEqual(3)
  expect(outcomes.at(-1)).toEqual([1, 1])
}, 60_000)

test('a lost answer to the record leaves a backup that is whole', async () => {
  const sample = await newSampleSet()
  sample.stores[0]?.faults.next('putIfAbsent', down(), { when: 'after', name: /records/ })
  await expect(writeBackup(sample)).rejects.toThrow(RequiredRepositoryError)
  expect(await filesIn(sample, 0)).toEqual(SMALL_TREE)
})

test('what lies in the folder must be what was written', async () => {
  const meddle: [string, (sample: SampleSet, base: string) => void | Promise<void>][] = [
    ['a lost pack', ({ stores }, base) => stores[0]?.lose(`${base}pack-00001`)],
    [
      'a foreign object',
      ({ stores }, base) => stores[0]?.put(`${base}pack-09999`, Buffer.from('x'), { signal: noDeadline }),
    ],
    ['a cut pack', ({ stores }, base) => stores[0]?.corrupt(`${base}pack-00001`, (bytes) => bytes.subarray(1))],
    ['lost WAL', ({ stores }) => stores[0]?.lose(stores[0].names(`${layout.folder}wal/`)[1] ?? '')],
    [
      'empty WAL',
      ({ stores }) => stores[0]?.corrupt(stores[0].names(`${layout.folder}wal/`)[1] ?? '', () => Buffer.alloc(0)),
    ],
  ]
  for (const [, spoil] of meddle) {
    const sample = await newSampleSet()
    const beforeCommit: WriteOptions['beforeCommit'] = async (writer) => {
      const base = layout.base(writer.backupId)
      await vi.waitFor(() => expect(sample.stores[0]?.names(`${base}pack-00001`)).toHaveLength(1))
      await spoil(sample, base)
    }
    const failed = await writeBackup(sample, smallTree(), { beforeCommit }).catch((error: unknown) => error)
    expect(failed).toBeInstanceOf(RequiredRepositoryError)
    expect((failed as Error).cause).toBeInstanceOf(FolderMismatchError)
    expect(await listed(sample)).toEqual([])
  }
})

test('a segment of its own range that never came fails the commit', async () => {
  const sample = await newSampleSet()
  await expect(writeBackup(sample, [], { leaveOutWal: true })).rejects.toThrow(BackupIncompleteError)
  expect(await listed(sample)).toEqual([])
})

test('the history of a later timeline is in the pack table, and so comes back with the backup', async () => {
  const sample = await newSampleSet()
  const { record } = await writeBackup(sample, [], { timeline: 2 })
  const [repository] = sample.set.repositories as [Repository]
  const { history } = await readPackTable(repository, record, noDeadline)
  expect(history).toEqual([expect.stringMatching(/^wal\/00000002\.history-[0-9a-f]{32}$/)])
  await expect(filesIn(sample, 0)).resolves.toEqual([])
})

test.each(["the host's monotonic clock", "the store's clock alone, as after a suspended host"])(
  'an attempt that was silent for longer than its lease does not commit, nor renew (%s)',
  async (which) => {
    const [clock, storeClock] = [new ManualClock(), new ManualClock()]
    const sample = await newSampleSet([true], clock, storeClock)
    const silent = which.startsWith('the host') ? clock : storeClock
    const late = writeBackup(sample, [], { clock, beforeCommit: () => silent.advance(HOUR_MS + 1) })
    await expect(late).rejects.toThrow(LeaseLostError)
    expect(sample.stores[0]?.names(`${layout.folder}begin/`)).toHaveLength(1)
    expect(await listed(sample)).toEqual([])
    await writeBackup(sample, [], { clock, beforeCommit: () => silent.advance(HOUR_MS - 1) })
    expect(await listed(sample)).toHaveLength(1)
  },
)

test.each([-30, -1, 1, 30])('a wall clock that jumps by %i days costs no attempt its lease', async (days) => {
  const clock = new ManualClock()
  const sample = await newSampleSet([true], clock)
  await writeBackup(sample, [], { clock, beforeCommit: () => clock.shift(days * 24 * HOUR_MS) })
  expect(await listed(sample)).toHaveLength(1)
})

test('a begin object that was swept is not renewed, and an optional repository that lost it is dropped', async () => {
  const sample = await newSampleSet([true, false])
  const { repositories } = await writeBackup(sample, [], {
    beforeCommit: ({ backupId }) => sample.stores[1]?.lose(layout.begin(backupId, 0)),
  })
  expect(repositories).toEqual([
    { name: 'a', outcome: 'stored' },
    { name: 'b', outcome: 'dropped', problem: expect.objectContaining({ code: 'LEASE_LOST' }) },
  ])
  const lost = writeBackup(sample, [], {
    beforeCommit: ({ backupId }) => sample.stores[0]?.lose(layout.begin(backupId, 0)),
  })
  await expect(lost).rejects.toThrow(LeaseLostError)
})

test('the lease is renewed under a new name every ten minutes, until the writer is left', async () => {
  const clock = new ManualClock()
  const sample = await newSampleSet([true], clock, clock)
  const writer = await beginWriter(sample, clock)
  const begins = (): number | undefined => sample.stores[0]?.names(`${layout.folder}begin/`).length
  expect(sample.stores[0]?.names(`${layout.folder}begin/`)).toEqual([layout.begin(writer.backupId, 0)])
  for (const expected of [2, 3]) {
    await vi.waitFor(() => expect(clock.sleepingMs).toContain(600_000))
    clock.advance(600_000)
    await vi.waitFor(() => expect(begins()).toBe(expected))
  }
  await writer[Symbol.asyncDispose]()
  expect(clock.sleepingMs).toEqual([])
  expect(begins()).toBe(3)
})

test('nothing readable is stored: no name, content or digest of a file', async () => {
  const sample = await newSampleSet()
  const files = [sampleFile('secret_table', 5_000), sampleFile('other', 300_000)]
  await writeBackup(sample, files, { sealing: { compressionLevel: 0 } })
  const [store] = sample.stores
  for (const name of store?.names() ?? []) {
    const stored = store?.bytesOf(name) ?? Buffer.alloc(0)
    expect(stored.includes('secret_table')).toBe(false)
    for (const { bytes } of files) expect(stored.includes(bytes.subarray(100, 132))).toBe(false)
  }
})

function beginWriter({ set, keys }: SampleSet, clock: Clock = systemClock): Promise<BackupWriter> {
  return BackupWriter.begin(
    set,
    keys,
    { cluster: CLUSTER, systemId: SYSTEM_ID, operationId: `test-${randomId()}`, sealing, writerVersion: 'test' },
    { clock, logger: silentLogger, signal: noDeadline },
  )
}
