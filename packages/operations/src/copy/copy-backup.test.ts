/** A copy is a backup of its own in the other repository, made without a key, or it is not there. */
import {
  type OpenedKeys,
  ClusterLayout,
  type CommitRecord,
  type Repository,
  listBackups,
  recordAt,
} from '@tidemark/repository'
import {
  CLUSTER,
  SYSTEM_ID,
  type SampleSet,
  newSampleSet,
  noDeadline,
  readBackup,
  writeBackup,
} from '@tidemark/repository/testing'
import { silentLogger, systemClock } from '@tidemark/kernel'
import { StoreFullError, StoreUnavailableError } from '@tidemark/storage'
import { ManualClock } from '@tidemark/storage/testing'
import { expect, test } from 'vitest'
import { verifyBackup } from '../verify/verify-backup.ts'
import { type CopyOutcome, copyBackup } from './copy-backup.ts'

const HOUR_MS = 3_600_000
const layout = new ClusterLayout(CLUSTER, SYSTEM_ID)
const down = (): StoreUnavailableError => new StoreUnavailableError('put', 'memory://1')
const deps = { clock: systemClock, logger: silentLogger, signal: noDeadline, progress: () => {} }

/** A set of two whose second, optional repository missed the one backup. */
async function withMissed(storeClock = systemClock): Promise<{ sample: SampleSet; record: CommitRecord }> {
  const sample = await newSampleSet([true, false], systemClock, storeClock)
  sample.stores[1]?.faults.always('put', down())
  const { record } = await writeBackup(sample, undefined, { timeline: 2 })
  sample.stores[1]?.faults.clear()
  return { sample, record }
}

const repositoryOf = ({ set }: SampleSet, i: number): Repository => {
  const repository = set.repositories[i] as Repository
  return { ...repository, capabilities: { conditionalPut: true, checksumAtIngest: true } }
}

/** No key takes part: none is handed in anywhere. */
function copy(sample: SampleSet, record: CommitRecord, from = 0, to = 1): Promise<CopyOutcome> {
  const [source, target] = [repositoryOf(sample, from), repositoryOf(sample, to)]
  return copyBackup({ from: source, to: target, at: recordAt(record) }, { ...deps, publicKey: sample.set.publicKey })
}

async function expectGood(sample: SampleSet, record: CommitRecord, keys: OpenedKeys = sample.keys): Promise<void> {
  const request = { backup: record.backupId, cluster: CLUSTER, repository: 'b', level: 'packs' } as const
  const verdict = await verifyBackup(request, { ...deps, set: sample.set, keyring: undefined, threads: 1 })
  expect(verdict.repositories).toMatchObject([{ name: 'b', ok: true, problems: [] }])
  const [before, after] = await Promise.all(
    [0, 1].map((i) => readBackup(repositoryOf(sample, i), record, keys.keyring)),
  )
  expect(after?.map(({ path, bytes }) => [path, bytes.toString('base64')])).toEqual(
    before?.map(({ path, bytes }) => [path, bytes.toString('base64')]),
  )
}

const packsIn = (names: readonly string[]): number => names.filter((name) => name.includes('/pack-')).length

const puts = (sample: SampleSet, i = 1): string[] => {
  const names: string[] = []
  const store = sample.stores[i]
  if (store !== undefined)
    store.faults.latency = (method, name) => void (method.startsWith('put') && names.push(name ?? ''))
  return names
}

test('a copy has the same names and bytes, WAL, history and keyrings included, and verifies without a key', async () => {
  const { sample, record } = await withMissed()
  for (const name of sample.stores[1]?.names('keys/') ?? []) sample.stores[1]?.lose(name)
  const outcome = await copy(sample, record)
  expect(outcome).toMatchObject({ outcome: 'copied', backupId: record.backupId })
  const [a, b] = sample.stores
  const names = a?.names().filter((name) => name !== 'tidemark.json' && !name.includes('/begin/')) ?? []
  expect(b?.names().filter((name) => name !== 'tidemark.json' && !name.includes('/begin/'))).toEqual(names)
  for (const name of names) expect(a?.bytesOf(name)?.equals(b?.bytesOf(name) ?? Buffer.alloc(0))).toBe(true)
  await expectGood(sample, record)
  expect(await copy(sample, record)).toMatchObject({ outcome: 'present', objects: 0 })
})

test('the begin object comes before everything of the backup, the record after it', async () => {
  const { sample, record } = await withMissed()
  const names = puts(sample)
  await copy(sample, record)
  const ofBackup = names.filter((name) => name.startsWith('clusters/'))
  expect(ofBackup[0]).toMatch(/\/begin\//)
  expect(ofBackup.at(-1)).toMatch(/\/records\//)
  expect(ofBackup.at(-2)).toMatch(/packs\.jsonl$/)
})

test('killed between any two durable writes, the target lists nothing, and the next copy sends only what is missing', async () => {
  const { sample, record } = await withMissed()
  const whole = puts(sample)
  await copy(sample, record)
  for (let n = 1; n < whole.length; n += 1) {
    const again = await withMissed()
    const store = again.sample.stores[1]
    let writes = 0
    if (store !== undefined)
      store.faults.latency = (method) => {
        if (method.startsWith('put') && (writes += 1) > n) throw down()
      }
    await expect(copy(again.sample, again.record)).rejects.toThrow(StoreUnavailableError)
    store?.faults.clear()
    const page = await listBackups(repositoryOf(again.sample, 1), again.sample.set.publicKey, { limit: 9 }, noDeadline)
    expect(page.backups).toEqual([])
    const sent = puts(again.sample)
    await copy(again.sample, again.record)
    expect(packsIn(sent)).toBeLessThanOrEqual(packsIn(whole))
    expect(packsIn(sent) + packsIn(whole.slice(0, n))).toBeLessThanOrEqual(packsIn(whole) + 1)
    await expectGood(again.sample, again.record)
  }
}, 60_000)

test('what the source has damaged is not copied, and no record is written', async () => {
  for (const pattern of [/pack-00001$/, /files-00001$/, /source$/, /packs\.jsonl$/, /[0-9A-F]{24}-/, /records\//]) {
    const { sample, record } = await withMissed()
    const name = sample.stores[0]?.names('clusters/').find((one) => pattern.test(one)) ?? ''
    sample.stores[0]?.corrupt(name, (bytes) => void (bytes[100] = (bytes[100] ?? 0) ^ 1))
    await expect(copy(sample, record)).rejects.toMatchObject({ retry: 'never' })
    expect(sample.stores[1]?.names(layout.records)).toEqual([])
  }
})

test('a pack that is there in its size and damaged is put right where the store does not check what it gets', async () => {
  const { sample, record } = await withMissed()
  sample.stores[1]?.faults.always('put', down(), { name: /packs\.jsonl$/ })
  await expect(copy(sample, record)).rejects.toThrow(StoreUnavailableError)
  sample.stores[1]?.faults.clear()
  sample.stores[1]?.corrupt(`${layout.base(record.backupId)}pack-00001`, (bytes) => void (bytes[9] = 1))
  const to = { ...repositoryOf(sample, 1), capabilities: { conditionalPut: true, checksumAtIngest: false } }
  await copyBackup(
    { from: repositoryOf(sample, 0), to, at: recordAt(record) },
    { ...deps, publicKey: sample.set.publicKey },
  )
  await expectGood(sample, record)
})

test('what an earlier copy left more than half a day ago is put again: a sweep may be at it', async () => {
  const storeClock = new ManualClock()
  const { sample, record } = await withMissed(storeClock)
  sample.stores[1]?.faults.always('put', down(), { name: /packs\.jsonl$/ })
  await expect(copy(sample, record)).rejects.toThrow(StoreUnavailableError)
  sample.stores[1]?.faults.clear()
  storeClock.advance(12 * HOUR_MS)
  const sent = puts(sample)
  await copy(sample, record)
  expect(sent.filter((name) => name.includes('/pack-'))).toHaveLength(record.totals.packs)
})

test('a full target says so, and a segment with other contents is an incident', async () => {
  const { sample, record } = await withMissed()
  sample.stores[1]?.faults.next('put', new StoreFullError('put', 'memory://1'), { name: /pack-/ })
  await expect(copy(sample, record)).rejects.toThrow(StoreFullError)
  const segment = sample.stores[0]?.names(`${layout.folder}wal/`).find((name) => /[0-9A-F]{24}-/.test(name)) ?? ''
  const other = `${segment.slice(0, segment.lastIndexOf('-'))}-${'ab'.repeat(16)}`
  await sample.stores[1]?.put(other, Buffer.alloc(1000), { signal: noDeadline })
  await expect(copy(sample, record)).rejects.toMatchObject({ code: 'WAL_SEGMENT_CONFLICT' })
  expect(sample.stores[1]?.names(layout.records)).toEqual([])
})

test("packs of a dead attempt that a backup shares come along, in that attempt's folder", async () => {
  const sample = await newSampleSet([true, false])
  sample.stores[1]?.faults.always('put', down())
  const operationId = 'shared'
  let deadId = ''
  const dies = writeBackup(sample, undefined, {
    operationId,
    beforeCommit: async ({ backupId }) => {
      deadId = backupId
      while ((sample.stores[0]?.names(layout.base(backupId)).length ?? 0) < 1) await new Promise(setImmediate)
      throw new Error('killed')
    },
  })
  await expect(dies).rejects.toThrow('killed')
  const { record } = await writeBackup(sample, undefined, { operationId })
  sample.stores[1]?.faults.clear()
  expect(record.parents).toEqual([deadId])
  await copy(sample, record)
  expect(sample.stores[1]?.names(layout.base(deadId)).length).toBeGreaterThan(0)
  await expectGood(sample, record)
})

test('another record under the same name is not overwritten', async () => {
  const { sample, record } = await withMissed()
  await sample.stores[1]?.put(recordAt(record).name, Buffer.from('foreign'), { signal: noDeadline })
  await expect(copy(sample, record)).rejects.toMatchObject({ code: 'DOCUMENT_DAMAGED' })
  expect(sample.stores[1]?.bytesOf(recordAt(record).name)?.toString()).toBe('foreign')
})
