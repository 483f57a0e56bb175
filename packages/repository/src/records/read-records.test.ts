/** Listing and finding: what cannot be trusted is shown as that, and never passes for a backup. */
import { expect, test } from 'vitest'
import { createKeyring } from '@tidemark/crypto'
import { StoreUnavailableError } from '@tidemark/storage'
import { BackupAmbiguousError, BackupIncompleteError, BackupNotFoundError, DocumentDamagedError } from '../errors.ts'
import { ClusterLayout, PACK_TABLE } from '../layout.ts'
import type { Repository } from '../set/repository.ts'
import {
  CLUSTER,
  SYSTEM_ID,
  type SampleSet,
  TEST_KEK,
  newSampleSet,
  noDeadline,
  readBackup,
  writeBackup,
} from '../testing/sample-set.ts'
import { sampleFile } from '../testing/sample-tree.ts'
import { MAX_BYTES } from './bounds.ts'
import type { CommitRecord } from './documents.ts'
import { findBackup } from './find-backup.ts'
import { type FoundBackup, type ListedBackup, listBackups, readPackTable } from './read-records.ts'

const layout = new ClusterLayout(CLUSTER, SYSTEM_ID)
const at = (hour: number): Date => new Date(Date.UTC(2026, 0, 1, hour))
const tree = [sampleFile('f', 1000)]

const first = ({ set }: SampleSet): Repository => set.repositories[0] as Repository
const recordNames = ({ stores }: SampleSet, i = 0): string[] => stores[i]?.names(layout.records) ?? []

async function list(sample: SampleSet): Promise<ListedBackup[]> {
  return (await listBackups(first(sample), sample.set.publicKey, { limit: 100 }, noDeadline)).backups
}

function find(sample: SampleSet, wanted: string, cluster?: string): Promise<FoundBackup> {
  return findBackup(sample.set, sample.set.repositories, wanted, cluster, noDeadline)
}

/** Replaces the one record by what `change` makes of it; `sign` as whom. */
async function replaceRecord(
  sample: SampleSet,
  change: (record: CommitRecord) => object,
  signer: { sign(payload: object): Buffer } = sample.keys.keyring.signer,
): Promise<void> {
  const [listed] = await list(sample)
  if (listed === undefined || !('record' in listed)) throw new Error('no record')
  sample.stores[0]?.corrupt(listed.name, () => signer.sign(change(listed.record)))
}

test('backups are listed newest first, each with its record', async () => {
  const sample = await newSampleSet()
  const ids: string[] = []
  for (const hour of [2, 1, 3]) ids.push((await writeBackup(sample, tree, { stoppedAt: at(hour) })).backupId)
  const listed = await list(sample)
  expect(listed.map(({ backupId }) => backupId)).toEqual([ids[2], ids[0], ids[1]])
  for (const backup of listed) expect('record' in backup && backup.record.backupId).toBe(backup.backupId)
})

const otherSigner = createKeyring('00000000000000aa', TEST_KEK, new Date(0)).keyring.signer

test.each<[string, (record: CommitRecord) => object, typeof otherSigner | undefined, string]>([
  ['signed by another key', (record) => record, otherSigner, 'SIGNATURE_REFUSED'],
  ['of another backup', (record) => ({ ...record, backupId: '00112233445566aa' }), undefined, 'DOCUMENT_DAMAGED'],
  ['of another cluster', (record) => ({ ...record, cluster: 'other' }), undefined, 'DOCUMENT_DAMAGED'],
  ['of another database system', (record) => ({ ...record, systemId: '1' }), undefined, 'DOCUMENT_DAMAGED'],
  ['of another set', (record) => ({ ...record, setId: '00112233445566aa' }), undefined, 'DOCUMENT_DAMAGED'],
  ['of another time', (record) => ({ ...record, stoppedAt: at(9).toISOString() }), undefined, 'DOCUMENT_DAMAGED'],
  ['of another format version', (record) => ({ ...record, version: 2 }), undefined, 'REPOSITORY_VERSION'],
  ['of another kind', (record) => ({ ...record, format: 'tidemark-begin' }), undefined, 'DOCUMENT_DAMAGED'],
  ['that needs an unknown feature', (record) => ({ ...record, requires: ['x'] }), undefined, 'REPOSITORY_VERSION'],
  ['without its totals', ({ totals: _totals, ...rest }) => rest, undefined, 'DOCUMENT_DAMAGED'],
])('a record %s is listed as untrusted and never found', async (_what, change, signer, code) => {
  const sample = await newSampleSet()
  const { backupId } = await writeBackup(sample, tree, { stoppedAt: at(1) })
  await replaceRecord(sample, change, signer)
  expect(await list(sample)).toEqual([
    expect.objectContaining({ backupId, untrusted: expect.objectContaining({ code }) }),
  ])
  await expect(find(sample, backupId)).rejects.toMatchObject({ code })
  await expect(find(sample, 'latest')).rejects.toMatchObject({ code })
})

test('a record without a signature, damaged anywhere, or empty, is listed as untrusted', async () => {
  const sample = await newSampleSet()
  const { backupId } = await writeBackup(sample, tree)
  const [name = ''] = recordNames(sample)
  const stored = sample.stores[0]?.bytesOf(name) ?? Buffer.alloc(0)
  const spoilt: Buffer[] = [Buffer.alloc(0), stored.subarray(0, stored.indexOf('\n') + 1), stored.subarray(1)]
  for (let byte = 0; byte < stored.length; byte += 7) {
    const changed = Buffer.from(stored)
    changed[byte] = (changed[byte] ?? 0) ^ (1 << (byte % 8))
    spoilt.push(changed)
  }
  for (const bytes of spoilt) {
    sample.stores[0]?.corrupt(name, () => bytes)
    const [listed] = await list(sample)
    expect(listed).toMatchObject({ backupId, untrusted: { code: 'SIGNATURE_REFUSED' } })
  }
})

test('a record with a field that this version does not know is read without it', async () => {
  const sample = await newSampleSet()
  const { backupId } = await writeBackup(sample, tree)
  await replaceRecord(sample, (record) => ({ ...record, note: 'x' }), undefined)
  const { record } = await find(sample, backupId)
  expect(record).not.toHaveProperty('note')
})

test('an old record under a later time does not pass for the latest backup', async () => {
  const sample = await newSampleSet()
  const old = await writeBackup(sample, tree, { stoppedAt: at(1) })
  await writeBackup(sample, tree, { stoppedAt: at(2) })
  const [oldName = ''] = recordNames(sample)
  const stored = sample.stores[0]?.bytesOf(oldName) ?? Buffer.alloc(0)
  await sample.stores[0]?.put(layout.record(at(3), old.backupId), stored, { signal: noDeadline })
  await expect(find(sample, 'latest')).rejects.toThrow(DocumentDamagedError)
  // The true one beside it is still found by its id.
  expect((await find(sample, old.backupId)).record).toEqual(old.record)
  await sample.stores[0]?.put(layout.record(at(0), old.backupId), stored, { signal: noDeadline })
  expect((await find(sample, old.backupId)).record).toEqual(old.record)
  expect((await list(sample)).map((backup) => 'record' in backup)).toEqual([false, true, true, false])
})

test('latest is the newest intact one', async () => {
  const sample = await newSampleSet()
  await writeBackup(sample, tree, { stoppedAt: at(1) })
  const intact = await writeBackup(sample, tree, { stoppedAt: at(2) })
  await writeBackup(sample, tree, { stoppedAt: at(3), verdict: 'damaged' })
  expect((await find(sample, 'latest')).record.backupId).toBe(intact.backupId)
})

test('latest is the newest of all repositories, also where the first one missed the last run', async () => {
  const sample = await newSampleSet([true, true])
  await writeBackup(sample, tree, { stoppedAt: at(1) })
  const last = await writeBackup(sample, tree, { stoppedAt: at(2) })
  for (const name of sample.stores[0]?.names('clusters/') ?? []) {
    if (name.includes(`records/`) && name.includes(last.backupId)) sample.stores[0]?.lose(name)
  }
  const found = await find(sample, 'latest')
  expect([found.record.backupId, found.repository.name]).toEqual([last.backupId, 'b'])
})

test('a backup is found by the unique beginning of its id', async () => {
  const sample = await newSampleSet()
  const ids: string[] = []
  for (let hour = 0; hour < 17; hour += 1)
    ids.push((await writeBackup(sample, [], { stoppedAt: at(hour), sealing: { threads: 1 } })).backupId)
  // Of 17 ids two begin alike.
  const shared = ids.map((id) => id.slice(0, 1)).find((digit, i, all) => all.indexOf(digit) !== i)
  await expect(find(sample, shared ?? '')).rejects.toThrow(BackupAmbiguousError)
  for (const id of ids) expect((await find(sample, id)).record.backupId).toBe(id)
  await expect(find(sample, 'zz')).rejects.toThrow(BackupNotFoundError)
  await expect(find(sample, 'latest', 'other')).rejects.toThrow(BackupNotFoundError)
}, 30_000)

/** Backups in the order in which the source had them, each stamped by a worker whose clock is `hours` off. */
async function stampedBy(
  sample: SampleSet,
  hours: readonly number[],
  timelines: readonly number[] = [],
): Promise<string[]> {
  const ids: string[] = []
  for (const [i, hour] of hours.entries()) {
    const { record, backupId } = await writeBackup(sample, [], { stoppedAt: at(i + hour), timeline: timelines[i] ?? 1 })
    const stopLsn = `0/${(0x9_0001 + i).toString(16).toUpperCase()}`
    const name = recordNames(sample).find((one) => one.includes(record.backupId)) ?? ''
    for (const store of sample.stores)
      store.corrupt(name, () => sample.keys.keyring.signer.sign({ ...record, stopLsn }))
    ids.push(backupId)
  }
  return ids
}

test.each<[string, number[], number[]]>([
  ['ran a year ahead for one backup', [0, 8_760, 0, 0], []],
  ['ran ahead for several backups', [90, 80, 70, 60, 0], []],
  ['runs three days behind', [0, 0, 0, -72], []],
  ['was right, and the server was promoted', [0, 0, 0], [1, 1, 2]],
])('latest is the newest by the source, where the worker’s clock %s', async (_what, hours, timelines) => {
  const sample = await newSampleSet([true, true])
  const ids = await stampedBy(sample, hours, timelines)
  expect((await find(sample, 'latest')).record.backupId).toBe(ids.at(-1))
})

test('latest is a promoted timeline, also where the other one went further', async () => {
  const sample = await newSampleSet()
  const [promoted = ''] = await stampedBy(sample, [0, -1, -2], [2, 1, 1])
  expect((await find(sample, 'latest')).record.backupId).toBe(promoted)
})

test('a record that cannot be trusted and is older by name does not keep latest from being found', async () => {
  const sample = await newSampleSet()
  const ids = await stampedBy(sample, [0, 0, 0])
  sample.stores[0]?.corrupt(recordNames(sample)[0] ?? '', (bytes) => void (bytes[40] = 0))
  expect((await find(sample, 'latest')).record.backupId).toBe(ids.at(-1))
})

test('a record larger than any is listed as untrusted, and its bytes are not read', async () => {
  const sample = await newSampleSet()
  await writeBackup(sample, [], { stoppedAt: at(1) })
  sample.stores[0]?.corrupt(recordNames(sample)[0] ?? '', () => Buffer.alloc(MAX_BYTES.record + 1))
  expect(await list(sample)).toMatchObject([{ untrusted: { code: 'OBJECT_TOO_LARGE' } }])
})

test('latest of two clusters has to say which', async () => {
  const sample = await newSampleSet()
  await writeBackup(sample, tree, { cluster: 'one' })
  const two = await writeBackup(sample, tree, { cluster: 'two' })
  await expect(find(sample, 'latest')).rejects.toThrow(BackupAmbiguousError)
  expect((await find(sample, 'latest', 'two')).record.backupId).toBe(two.backupId)
})

test('what one repository cannot say, the next is asked for; an outage is no absence', async () => {
  const sample = await newSampleSet([true, true])
  const { backupId } = await writeBackup(sample, tree)
  const [name = ''] = recordNames(sample)
  sample.stores[0]?.corrupt(name, (bytes) => bytes.subarray(1))
  expect((await find(sample, backupId)).repository.name).toBe('b')
  sample.stores[1]?.faults.always('listFolders', new StoreUnavailableError('list', 'memory://1'))
  // What passes is said before what does not: whoever waits for it gets the backup from there.
  await expect(find(sample, backupId)).rejects.toThrow(StoreUnavailableError)
  sample.stores[0]?.lose(name)
  await expect(find(sample, backupId)).rejects.toThrow(StoreUnavailableError)
})

test('an outage while listing is thrown, not shown as untrusted records', async () => {
  const sample = await newSampleSet()
  await writeBackup(sample, tree)
  sample.stores[0]?.faults.next('get', new StoreUnavailableError('get', 'memory://0'), { name: /records/ })
  await expect(list(sample)).rejects.toThrow(StoreUnavailableError)
})

test('a pack table that was changed, or is gone, is refused', async () => {
  const sample = await newSampleSet()
  const { record, backupId } = await writeBackup(sample, tree)
  const name = layout.base(backupId) + PACK_TABLE
  const stored = sample.stores[0]?.bytesOf(name) ?? Buffer.alloc(0)
  for (let byte = 0; byte < stored.length; byte += 11) {
    const changed = Buffer.from(stored)
    changed[byte] = (changed[byte] ?? 0) ^ 1
    sample.stores[0]?.corrupt(name, () => changed)
    await expect(readPackTable(first(sample), record, noDeadline)).rejects.toThrow(DocumentDamagedError)
  }
  sample.stores[0]?.lose(name)
  await expect(readPackTable(first(sample), record, noDeadline)).rejects.toThrow(BackupIncompleteError)
})

test('damage to any object of a backup is noticed', async () => {
  const sample = await newSampleSet()
  const { record, backupId } = await writeBackup(sample, tree)
  const names = [
    ...(sample.stores[0]?.names(layout.base(backupId)) ?? []),
    ...(sample.stores[0]?.names(`${layout.folder}wal/`) ?? []),
  ]
  expect(names).toHaveLength(7)
  for (const name of names) {
    const stored = sample.stores[0]?.bytesOf(name) ?? Buffer.alloc(0)
    for (const byte of [0, 40, 130, 170, Math.floor(stored.length / 2), stored.length - 1]) {
      sample.stores[0]?.corrupt(name, (bytes) => void (bytes[byte] = (bytes[byte] ?? 0) ^ 0x10))
      await expect(readBackup(first(sample), record, sample.keys.keyring)).rejects.toBeInstanceOf(Error)
      sample.stores[0]?.corrupt(name, () => stored)
    }
  }
  await expect(readBackup(first(sample), record, sample.keys.keyring)).resolves.toHaveLength(1)
})

test('among 100,000 backups, listings and the records that are asked for are all that is read', async () => {
  const sample = await newSampleSet()
  const store = sample.stores[0]
  const newest = await writeBackup(sample, tree, { stoppedAt: at(24 * 40_000) })
  const damaged = await writeBackup(sample, tree, { stoppedAt: at(24 * 40_001), verdict: 'damaged' })
  const junk = Buffer.from('not signed')
  for (let i = 0; i < 100_000; i += 1) {
    const id = (0x1000_0000_0000_0000n + BigInt(i)).toString(16)
    await store?.put(layout.record(at(i / 10), id), junk, { signal: noDeadline })
  }
  const calls: string[] = []
  if (store !== undefined) store.faults.latency = (method, name) => void calls.push(`${method} ${name ?? ''}`)
  const callsOf = async (work: () => Promise<unknown>): Promise<{ lists: number; gets: number }> => {
    calls.length = 0
    await work()
    const gets = calls.filter((call) => call.startsWith('get')).length
    return { lists: calls.length - gets, gets }
  }

  // Two folder levels and one listing of names; the damaged one is read before the intact one, and at most 30 to compare it with.
  const latest = await callsOf(() => find(sample, 'latest', CLUSTER))
  expect(latest.lists).toBe(2)
  expect(latest.gets).toBeGreaterThanOrEqual(2)
  expect(latest.gets).toBeLessThanOrEqual(2 + 30)
  expect((await find(sample, 'latest')).record.backupId).toBe(newest.backupId)
  expect(await callsOf(() => find(sample, newest.backupId.slice(0, 8), CLUSTER))).toEqual({ lists: 2, gets: 1 })
  const page = (before?: string) =>
    listBackups(first(sample), sample.set.publicKey, { cluster: CLUSTER, limit: 3, before }, noDeadline)
  expect(await callsOf(() => page())).toEqual({ lists: 2, gets: 3 })

  const one = await page()
  const two = await page(one.next)
  expect(one.backups.map(({ backupId }) => backupId).slice(0, 2)).toEqual([damaged.backupId, newest.backupId])
  expect([...one.backups, ...two.backups].slice(2).map(({ backupId }) => backupId)).toEqual(
    [99_999, 99_998, 99_997, 99_996].map((i) => (0x1000_0000_0000_0000n + BigInt(i)).toString(16)),
  )
  const last = await listBackups(first(sample), sample.set.publicKey, { limit: 10, before: two.next }, noDeadline)
  expect(last.backups).toHaveLength(10)
  const end = { limit: 10, before: '20260101T001200000Z' }
  expect((await listBackups(first(sample), sample.set.publicKey, end, noDeadline)).next).toBeUndefined()
}, 60_000)
