/** A copy is a backup of its own in the other repository, made without a key, or it is not there. */
import {
  type OpenedKeys,
  ClusterLayout,
  type CommitRecord,
  MAX_BYTES,
  type Repository,
  listBackups,
  maxWalBytes,
  openKeys,
  recordAt,
} from '@tidemark/repository'
import {
  CLUSTER,
  SEGMENT_BYTES,
  SYSTEM_ID,
  TEST_KEK,
  type SampleSet,
  newSampleSet,
  noDeadline,
  readBackup,
  writeBackup,
} from '@tidemark/repository/testing'
import { AbortedError, silentLogger, systemClock } from '@tidemark/kernel'
import { type GetOptions, StoreFullError, StoreUnavailableError } from '@tidemark/storage'
import { ManualClock, MemoryObjectStore } from '@tidemark/storage/testing'
import { expect, test } from 'vitest'
import { verifyBackup } from '../verify/verify-backup.ts'
import { type SweepOutcome, sweepRepository } from '../sweep/sweep-repository.ts'
import { type CopyDeps, type CopyOutcome, copyBackup } from './copy-backup.ts'
import { silenceOf } from './folder-history.ts'

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
function copy(sample: SampleSet, record: CommitRecord, other: Partial<CopyDeps> = {}): Promise<CopyOutcome> {
  const [from, to] = [repositoryOf(sample, 0), repositoryOf(sample, 1)]
  return copyBackup({ from, to, at: recordAt(record) }, { ...deps, publicKey: sample.set.publicKey, ...other })
}

const sweep = (sample: SampleSet): Promise<SweepOutcome> =>
  sweepRepository(
    repositoryOf(sample, 1),
    { cluster: undefined, dryRun: false },
    { ...deps, publicKey: sample.set.publicKey },
  )

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

/** A target where a copy died more than a day ago, and the names of what it left. */
async function withDebris(): Promise<{ sample: SampleSet; record: CommitRecord; clock: ManualClock; left: string[] }> {
  const clock = new ManualClock()
  const { sample, record } = await withMissed(clock)
  sample.stores[1]?.faults.always('put', down(), { name: /packs\.jsonl$/ })
  await expect(copy(sample, record)).rejects.toThrow(StoreUnavailableError)
  sample.stores[1]?.faults.clear()
  clock.advance(25 * HOUR_MS)
  const left = sample.stores[1]?.names(layout.base(record.backupId)) ?? []
  expect(left.length).toBeGreaterThan(2)
  return { sample, record, clock, left }
}

/** Half a minute goes by whenever the copy waits for that. */
async function lettingTimePass<T>(clock: ManualClock, work: Promise<T>, eachStep = (): void => {}): Promise<T> {
  const settled = new AbortController()
  const done = work.finally(() => settled.abort())
  done.catch(() => {})
  while (!settled.signal.aborted) {
    if (clock.sleepingMs.some((ms) => ms <= 30_000)) {
      clock.advance(30_000)
      eachStep()
    }
    await new Promise(setImmediate)
  }
  return done
}

test('a delete of a sweep that looked before the copy and lands 30 minutes late leaves no hollow copy', async () => {
  const { sample, record, clock, left } = await withDebris()
  const begunMs = clock.now().getTime()
  let landed = false
  const land = (): void => {
    if (landed) return
    landed = true
    for (const name of left) if (sample.stores[1]?.bytesOf(name) !== undefined) sample.stores[1].lose(name)
  }
  const landWhenDue = (): void => {
    if (clock.now().getTime() - begunMs >= HOUR_MS / 2) land()
  }
  const outcome = await lettingTimePass(clock, copy(sample, record, { clock }), landWhenDue)
  expect(outcome).toMatchObject({ outcome: 'copied' })
  land()
  await expectGood(sample, record)
})

test('a copy that died while it waited for a sweep is not taken for a fresh one', async () => {
  const { sample, record, clock, left } = await withDebris()
  const stop = new AbortController()
  const dies = copy(sample, record, { clock, signal: stop.signal })
  dies.catch(() => {})
  await expect.poll(() => clock.sleepingMs.some((ms) => ms <= 30_000)).toBe(true)
  stop.abort()
  await expect(dies).rejects.toThrow(AbortedError)
  let landed = false
  const outcome = lettingTimePass(clock, copy(sample, record, { clock }), () => {
    if (landed) return
    landed = true
    for (const name of left) sample.stores[1]?.lose(name)
  })
  await outcome
  expect(landed).toBe(true)
  await expectGood(sample, record)
})

test('without a begin object in the source, a copy does not go where a sweep may be', async () => {
  const { sample, record, clock } = await withDebris()
  for (const name of sample.stores[0]?.names(layout.begins) ?? []) sample.stores[0]?.lose(name)
  const refused = { code: 'COPY_UNPROTECTED', retry: 'after-operator' }
  await expect(copy(sample, record, { clock })).rejects.toMatchObject(refused)
  await sweep(sample)
  // The folder is empty, and what was asked for there may still take effect.
  await expect(copy(sample, record, { clock })).rejects.toMatchObject(refused)
  for (const hours of [0, 1, 25]) {
    clock.advance(hours * HOUR_MS)
    await sweep(sample)
  }
  await copy(sample, record, { clock })
  await expectGood(sample, record)
})

test('a copy without a begin object that takes too long says that, and not that it did not renew one', async () => {
  const clock = new ManualClock()
  const { sample, record } = await withMissed(clock)
  for (const name of sample.stores[0]?.names(layout.begins) ?? []) sample.stores[0]?.lose(name)
  const store = sample.stores[1]
  if (store !== undefined)
    store.faults.latency = (method, name) => {
      if (method.startsWith('put') && name?.endsWith('/source') === true) clock.advance(12 * HOUR_MS)
    }
  await expect(copy(sample, record, { clock })).rejects.toMatchObject({ code: 'COPY_TOO_LONG', retry: 'backoff' })
  expect(store?.names(layout.records)).toEqual([])
})

test('after a sweep that emptied the folder, a delete of it that lands half an hour late leaves no hollow copy', async () => {
  const { sample, record, clock, left } = await withDebris()
  await sweep(sample)
  await sweep(sample)
  expect(sample.stores[1]?.names(layout.base(record.backupId))).toEqual([])
  const sweptMs = clock.now().getTime()
  let landed = false
  const land = (): void => {
    if (landed || clock.now().getTime() - sweptMs < HOUR_MS / 2) return
    landed = true
    for (const name of left) if (sample.stores[1]?.bytesOf(name) !== undefined) sample.stores[1].lose(name)
  }
  expect(await lettingTimePass(clock, copy(sample, record, { clock }), land)).toMatchObject({ outcome: 'copied' })
  expect(landed).toBe(true)
  await expectGood(sample, record)
})

test('objects that vanish beside the record are put again before the copy counts as done', async () => {
  const { sample, record } = await withMissed()
  const store = sample.stores[1]
  const pack = `${layout.base(record.backupId)}pack-00001`
  if (store !== undefined)
    store.faults.latency = (method, name) => {
      if (method === 'putIfAbsent' && name === recordAt(record).name) store.lose(pack)
    }
  expect(await copy(sample, record)).toMatchObject({ outcome: 'copied' })
  await expectGood(sample, record)
})

test('a backup that is recorded and lacks objects is put right by the next copy of it', async () => {
  const { sample, record } = await withMissed()
  await copy(sample, record)
  sample.stores[1]?.lose(`${layout.base(record.backupId)}pack-00001`)
  sample.stores[1]?.lose(sample.stores[1].names(`${layout.folder}wal/`)[0] ?? '')
  expect(await copy(sample, record)).toMatchObject({ outcome: 'copied' })
  await expectGood(sample, record)
  expect(await copy(sample, record)).toMatchObject({ outcome: 'present', objects: 0 })
})

test.each([
  ['while it sent WAL', /[0-9A-F]{24}-/],
  ['while it sent the file list', /files-00001$/],
  ['before the record', /packs\.jsonl$/],
])('a copy whose host slept for a day %s does not commit', async (_when, at) => {
  const clock = new ManualClock()
  const { sample, record } = await withMissed(clock)
  const store = sample.stores[1]
  if (store !== undefined)
    store.faults.latency = (method, name) => {
      if (!method.startsWith('put') || !at.test(name ?? '')) return
      store.faults.latency = undefined
      clock.advance(25 * HOUR_MS)
    }
  await expect(copy(sample, record, { clock })).rejects.toMatchObject({ code: 'LEASE_LOST' })
  expect(store?.names(layout.records)).toEqual([])
})

test("a copy whose begin object a sweep has taken does not commit, whatever the host's clock says", async () => {
  const { sample, record } = await withMissed()
  const store = sample.stores[1]
  if (store !== undefined)
    store.faults.latency = (method, name) => {
      if (!method.startsWith('put') || name?.endsWith('/source') !== true) return
      for (const begin of store.names(layout.begins)) store.lose(begin)
    }
  await expect(copy(sample, record)).rejects.toMatchObject({ code: 'LEASE_LOST' })
  expect(store?.names(layout.records)).toEqual([])
})

test('the begin object stays young while a single object takes hours', async () => {
  const clock = new ManualClock()
  const { sample, record } = await withMissed(clock)
  const store = sample.stores[1]
  const ages: number[] = []
  if (store !== undefined)
    store.faults.latency = async (method, name) => {
      if (method !== 'put' || !/[0-9A-F]{24}-/.test(name ?? '')) return
      store.faults.latency = undefined
      for (let i = 0; i < 30; i += 1) {
        clock.advance(10 * 60_000)
        for (let tick = 0; tick < 20; tick += 1) await new Promise(setImmediate)
        const begin = await store.stat(store.names(layout.begins)[0] ?? '', noDeadline)
        ages.push(clock.now().getTime() - (begin?.modifiedAt.getTime() ?? 0))
      }
    }
  await copy(sample, record, { clock })
  expect(ages).toHaveLength(30)
  expect(Math.max(...ages)).toBeLessThanOrEqual(10 * 60_000)
  await expectGood(sample, record)
})

test.each([
  ['junk', () => Buffer.from('junk')],
  ['nothing', () => Buffer.alloc(0)],
  ['more than a keyring can be', () => Buffer.alloc(MAX_BYTES.keyring + 1)],
  [
    'a signed document that is none',
    (_right: Buffer, sign: (payload: object) => Buffer) => sign({ number: 99, format: 'other' }),
  ],
  [
    'a changed keyring',
    (right: Buffer) => Buffer.from(right.toString('latin1').replace('"number":1', '"number":2'), 'latin1'),
  ],
])('a keyring name that holds %s in the target is given the keyring', async (_what, wrong) => {
  const { sample, record } = await withMissed()
  const [name = ''] = sample.stores[0]?.names('keys/') ?? []
  const right = sample.stores[0]?.bytesOf(name) ?? Buffer.alloc(0)
  sample.stores[1]?.corrupt(name, () => wrong(right, (payload) => sample.keys.keyring.signer.sign(payload)))
  await copy(sample, record)
  expect(sample.stores[1]?.bytesOf(name)?.equals(right)).toBe(true)
  const alone = { ...sample.set, repositories: [repositoryOf(sample, 1)] }
  await expectGood(sample, record, await openKeys(alone, [TEST_KEK], noDeadline))
})

test('of two signed keyrings with one name neither is replaced', async () => {
  const { sample, record } = await withMissed()
  const [name = ''] = sample.stores[0]?.names('keys/') ?? []
  const payload = JSON.parse(sample.stores[0]?.bytesOf(name)?.toString().split('\n')[0] ?? '') as object
  const other = sample.keys.keyring.signer.sign({ ...payload, createdAt: '2026-02-02T00:00:00.000Z' })
  sample.stores[1]?.corrupt(name, () => other)
  await expect(copy(sample, record)).rejects.toMatchObject({ code: 'DOCUMENT_DAMAGED' })
  expect(sample.stores[1]?.bytesOf(name)?.equals(other)).toBe(true)
  expect(sample.stores[1]?.names(layout.records)).toEqual([])
})

test('a foreign object in the folder is healed by the sweep, however often the copy is tried meanwhile', async () => {
  const clock = new ManualClock()
  const { sample, record } = await withMissed(clock)
  const foreign = `${layout.base(record.backupId)}pack-99999`
  await sample.stores[1]?.put(foreign, Buffer.from('foreign'), { signal: noDeadline })
  for (let hour = 0; hour < 25; hour += 1) {
    const error: unknown = await copy(sample, record, { clock }).catch((reason: unknown) => reason)
    expect(error).toMatchObject({ code: 'BACKUP_FOLDER_MISMATCH', hint: expect.stringContaining('sweep') as string })
    clock.advance(HOUR_MS)
  }
  await sweep(sample)
  expect(sample.stores[1]?.bytesOf(foreign)).toBeUndefined()
  await lettingTimePass(clock, copy(sample, record, { clock }))
  await expectGood(sample, record)
})

test('an object that is larger than anything of its kind is not read', async () => {
  for (const [pattern, bytes] of [
    [/[0-9A-F]{24}-/, maxWalBytes(SEGMENT_BYTES)],
    [/\.history-/, MAX_BYTES.history],
    [/records\//, MAX_BYTES.record],
  ] as const) {
    const { sample, record } = await withMissed()
    const name = sample.stores[0]?.names('clusters/').find((one) => pattern.test(one)) ?? ''
    sample.stores[0]?.corrupt(name, (right) => Buffer.concat([right, Buffer.alloc(bytes + 1 - right.length)]))
    await expect(copy(sample, record)).rejects.toMatchObject({ code: 'OBJECT_TOO_LARGE' })
    expect(sample.stores[1]?.names(layout.records)).toEqual([])
  }
})

test('a silence is found wherever it lies, and ends with the first object after it', () => {
  const [now, hour] = [1_000 * HOUR_MS, HOUR_MS]
  expect(silenceOf([], now)).toBeUndefined()
  expect(silenceOf([now, now - 11.9 * hour, now - 23 * hour], now)).toBeUndefined()
  expect(silenceOf([now - 12 * hour], now)).toEqual({ awakeMs: undefined })
  expect(silenceOf([now - 30 * hour, now - hour, now - 2 * hour], now)).toEqual({ awakeMs: now - 2 * hour })
})

test('a full target says so', async () => {
  const { sample, record } = await withMissed()
  sample.stores[1]?.faults.next('put', new StoreFullError('put', 'memory://1'), { name: /pack-/ })
  await expect(copy(sample, record)).rejects.toThrow(StoreFullError)
})

test.each([
  ['segment', /wal\/.*[0-9A-F]{24}-/, 'ab'],
  ['segment whose other contents come first by name', /wal\/.*[0-9A-F]{24}-/, '00'],
])(
  'a %s with other contents is an incident, also the next time, and nothing is put before that is seen',
  async (_what, pattern, byte) => {
    const { sample, record } = await withMissed()
    for (const right of sample.stores[0]?.names(`${layout.folder}wal/`).filter((name) => pattern.test(name)) ?? []) {
      const again = await withMissed()
      const own = again.sample.stores[0]?.names(`${layout.folder}wal/`) ?? []
      const name =
        own.find((one) => one.slice(0, one.lastIndexOf('-')) === right.slice(0, right.lastIndexOf('-'))) ?? ''
      const other = `${name.slice(0, name.lastIndexOf('-'))}-${byte.repeat(16)}`
      await again.sample.stores[1]?.put(other, Buffer.alloc(1000), { signal: noDeadline })
      const names = puts(again.sample)
      for (let attempt = 1; attempt <= 2; attempt += 1) {
        const refused: unknown = await copy(again.sample, again.record).catch((error: unknown) => error)
        expect(refused).toMatchObject({ code: 'WAL_SEGMENT_CONFLICT', facts: expect.anything() as unknown })
        expect(JSON.stringify((refused as { facts: unknown }).facts)).toContain(other)
      }
      expect(names).toEqual([])
    }
    expect(await copy(sample, record)).toMatchObject({ outcome: 'copied' })
  },
)

test('other contents that come while WAL is sent are an incident, also the next time', async () => {
  const { sample, record } = await withMissed()
  const store = sample.stores[1]
  if (store === undefined) return
  store.faults.latency = async (method, name) => {
    if (method !== 'put' || name === undefined || !/wal\/.*[0-9A-F]{24}-/.test(name)) return
    store.faults.latency = undefined
    await store.put(`${name.slice(0, name.lastIndexOf('-'))}-${'ab'.repeat(16)}`, Buffer.alloc(1000), {
      signal: noDeadline,
    })
  }
  for (let attempt = 1; attempt <= 3; attempt += 1)
    await expect(copy(sample, record)).rejects.toMatchObject({ code: 'WAL_SEGMENT_CONFLICT' })
  expect(store.names(layout.records)).toEqual([])
})

test('a copy that no keyring opens is not made; one that another repository of the set has comes along', async () => {
  const { sample, record } = await withMissed()
  const [name = ''] = sample.stores[0]?.names('keys/') ?? []
  const right = sample.stores[0]?.bytesOf(name) ?? Buffer.alloc(0)
  for (const store of sample.stores) store.lose(name)
  await expect(copy(sample, record)).rejects.toMatchObject({
    code: 'KEYRING_MISSING',
    retry: 'after-operator',
    facts: { dataKeys: record.dataKeys },
  })
  expect(sample.stores[1]?.names(layout.records)).toEqual([])
  const third = new MemoryObjectStore({ url: 'memory://third' })
  await third.put(name, right, { signal: noDeadline })
  const others = [{ ...repositoryOf(sample, 0), name: 'c', store: third }]
  const request = { from: repositoryOf(sample, 0), to: repositoryOf(sample, 1), at: recordAt(record), others }
  await copyBackup(request, { ...deps, publicKey: sample.set.publicKey })
  const alone = { ...sample.set, repositories: [repositoryOf(sample, 1)] }
  const keys = await openKeys(alone, [TEST_KEK], noDeadline)
  expect(sample.stores[1]?.bytesOf(name)?.equals(right)).toBe(true)
  await expectGood(sample, record, keys)
})

test('a history file of a timeline id that was used before lies beside the other one', async () => {
  const { sample, record } = await withMissed()
  const name = sample.stores[0]?.names(`${layout.folder}wal/`).find((one) => one.includes('.history-')) ?? ''
  await sample.stores[1]?.put(`${name.slice(0, name.lastIndexOf('-'))}-${'ff'.repeat(16)}`, Buffer.alloc(1000), {
    signal: noDeadline,
  })
  expect(await copy(sample, record)).toMatchObject({ outcome: 'copied' })
  await expectGood(sample, record)
})

test('a keyring that vanishes from the target while it is copied into keeps the record from being written', async () => {
  const { sample, record } = await withMissed()
  const store = sample.stores[1]
  if (store !== undefined)
    store.faults.latency = (method, name) => {
      if (method === 'put' && name?.endsWith('packs.jsonl') === true)
        for (const key of store.names('keys/')) store.lose(key)
    }
  await expect(copy(sample, record)).rejects.toMatchObject({ code: 'KEYRING_MISSING' })
  expect(store?.names(layout.records)).toEqual([])
})

async function copyWhileFlipping(flips: number): Promise<{ ended: string; equal: boolean[] }> {
  const { sample, record } = await withMissed()
  const from = repositoryOf(sample, 0)
  let left = flips
  const get = async (name: string, options: GetOptions): Promise<Buffer> => {
    const bytes = Buffer.from(await from.store.get(name, options))
    if (!/[0-9A-F]{24}-/.test(name) || left === 0) return bytes
    left -= 1
    const at = bytes.length - 1 - (left % 64)
    bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at)
    return bytes
  }
  const store = new Proxy(from.store, {
    get: (target, property) => {
      if (property === 'get') return get
      const value: unknown = Reflect.get(target, property, target)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
  const request = { from: { ...from, store }, to: repositoryOf(sample, 1), at: recordAt(record) }
  const ended = await copyBackup(request, { ...deps, publicKey: sample.set.publicKey }).then(
    ({ outcome }) => outcome,
    ({ code }: { code: string }) => code,
  )
  const [a, b] = sample.stores
  const segments = b?.names(`${layout.folder}wal/`).filter((name) => /[0-9A-F]{24}-/.test(name)) ?? []
  return {
    ended,
    equal: segments.map((name) => b?.bytesOf(name)?.equals(a?.bytesOf(name) ?? Buffer.alloc(0)) === true),
  }
}

test('WAL that comes changed once is read again, and is not copied where it comes other each time', async () => {
  expect(await copyWhileFlipping(1)).toEqual({ ended: 'copied', equal: [true, true, true] })
  expect(await copyWhileFlipping(1000)).toEqual({ ended: 'STORED_OTHERWISE', equal: [] })
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

test("a parent's folder that a record protects is not waited for, however silent it was", async () => {
  const clock = new ManualClock()
  const sample = await newSampleSet([true, false], systemClock, clock)
  sample.stores[1]?.faults.always('put', down())
  let deadId = ''
  const dies = writeBackup(sample, undefined, {
    operationId: 'shared',
    beforeCommit: async ({ backupId }) => {
      deadId = backupId
      while ((sample.stores[0]?.names(layout.base(backupId)).length ?? 0) < 1) await new Promise(setImmediate)
      throw new Error('killed')
    },
  })
  await expect(dies).rejects.toThrow('killed')
  const { record } = await writeBackup(sample, undefined, { operationId: 'shared' })
  sample.stores[1]?.faults.clear()
  expect(record.parents).toEqual([deadId])
  await copy(sample, record, { clock })
  clock.advance(48 * HOUR_MS)
  sample.stores[1]?.lose(`${layout.base(record.backupId)}packs.jsonl`)
  expect(sample.stores[1]?.names(layout.base(deadId)).length).toBeGreaterThan(0)
  // Nobody lets time pass: it would wait for ever.
  expect(await copy(sample, record, { clock })).toMatchObject({ outcome: 'copied' })
  await expectGood(sample, record)
})

test('another record under the same name is not overwritten', async () => {
  const { sample, record } = await withMissed()
  await sample.stores[1]?.put(recordAt(record).name, Buffer.from('foreign'), { signal: noDeadline })
  await expect(copy(sample, record)).rejects.toMatchObject({ code: 'DOCUMENT_DAMAGED' })
  expect(sample.stores[1]?.bytesOf(recordAt(record).name)?.toString()).toBe('foreign')
})
