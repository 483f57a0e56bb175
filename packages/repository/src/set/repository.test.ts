/** What makes places a set, and what keeps anything else out. */
import {
  KeyEncryptionKey,
  KeyMissingError,
  SignatureRefusedError,
  UnknownDataKeyError,
  WrongKeyError,
} from '@tidemark/crypto'
import { silentLogger, systemClock } from '@tidemark/kernel'
import { StoreUnavailableError } from '@tidemark/storage'
import { MemoryObjectStore } from '@tidemark/storage/testing'
import { expect, test } from 'vitest'
import {
  DocumentDamagedError,
  FormatVersionError,
  NotARepositoryError,
  RepositoryExistsError,
  SetMismatchError,
} from '../errors.ts'
import { MAX_BYTES } from '../records/bounds.ts'
import { TEST_KEK, newSampleSet, noDeadline } from '../testing/sample-set.ts'
import { type RepositoryPlace, initRepositorySet, openKeys, openRepositorySet } from './repository.ts'

const otherKek = new KeyEncryptionKey(Buffer.alloc(32, 2))

function placesOf(...stores: MemoryObjectStore[]): RepositoryPlace[] {
  return stores.map((store, i) => ({ name: `r${i}`, store, required: true }))
}

function init(
  places: readonly RepositoryPlace[],
  keks: readonly KeyEncryptionKey[] = [TEST_KEK],
  pinned?: string,
): ReturnType<typeof initRepositorySet> {
  return initRepositorySet(places, keks, pinned, { clock: systemClock, logger: silentLogger, signal: noDeadline })
}

const open = (places: readonly RepositoryPlace[], pinned?: string): ReturnType<typeof openRepositorySet> =>
  openRepositorySet(places, pinned, noDeadline)

test('init makes a set that opens, with and without its pinned key', async () => {
  const places = placesOf(new MemoryObjectStore(), new MemoryObjectStore())
  const { set, created } = await init(places)
  expect(created.map(({ name }) => name)).toEqual(['r0', 'r1'])
  expect((await open(places)).setId).toBe(set.setId)
  const again = await open(places, set.publicKey)
  expect(again.repositories.map(({ marker }) => marker.repositoryId)).toHaveLength(2)
  expect((await openKeys(again, [TEST_KEK], noDeadline)).keyring.publicKey).toBe(set.publicKey)
})

test('init is refused where a repository is, and changes nothing', async () => {
  const store = new MemoryObjectStore()
  await init(placesOf(store))
  const before = store.names().map((name) => [name, store.bytesOf(name)])
  await expect(init(placesOf(store))).rejects.toThrow(RepositoryExistsError)
  expect(store.names().map((name) => [name, store.bytesOf(name)])).toEqual(before)
})

test('an empty place joins the set that the others belong to, with the very bytes of its keyring', async () => {
  const [first, second] = [new MemoryObjectStore(), new MemoryObjectStore()]
  const { set } = await init(placesOf(first))
  const joined = await init(placesOf(first, second))
  expect(joined.set.setId).toBe(set.setId)
  expect(joined.created.map(({ name }) => name)).toEqual(['r1'])
  const [keyring = ''] = first.names('keys/')
  expect(second.bytesOf(keyring)).toEqual(first.bytesOf(keyring))
  expect((await open(placesOf(second, first))).setId).toBe(set.setId)
})

test('joining asks for the key of the set, before it writes', async () => {
  const [first, second] = [new MemoryObjectStore(), new MemoryObjectStore()]
  await init(placesOf(first))
  await expect(init(placesOf(first, second), [otherKek])).rejects.toThrow(WrongKeyError)
  await expect(init(placesOf(first, second), [])).rejects.toThrow(KeyMissingError)
  await expect(init(placesOf(second), [])).rejects.toThrow(KeyMissingError)
  expect(second.names()).toEqual([])
})

test('a place that holds anything else is refused and not touched', async () => {
  const store = new MemoryObjectStore()
  await store.put('photos/2019/cat.jpg', Buffer.from('cat'), { signal: noDeadline })
  await expect(init(placesOf(store))).rejects.toThrow(RepositoryExistsError)
  expect(store.names()).toEqual(['photos/2019/cat.jpg'])
})

test('what a capability probe left behind does not make a place full', async () => {
  const store = new MemoryObjectStore()
  await store.put('scratch/probe-0011', Buffer.from('x'), { signal: noDeadline })
  await expect(init(placesOf(store))).resolves.toMatchObject({ created: [{ name: 'r0' }] })
})

/** An init whose n-th write, and every later one, does not arrive. */
async function initUpToWrite(store: MemoryObjectStore, n: number): Promise<void> {
  let writes = 0
  store.faults.latency = (method) => {
    if (method === 'putIfAbsent' && (writes += 1) >= n) throw new StoreUnavailableError('put', 'memory://')
  }
  await expect(init(placesOf(store))).rejects.toThrow(StoreUnavailableError)
  store.faults.clear()
  await expect(open(placesOf(store))).rejects.toThrow(NotARepositoryError)
}

test('an init that ends before its first write is simply repeated', async () => {
  const store = new MemoryObjectStore()
  await initUpToWrite(store, 1)
  await expect(init(placesOf(store))).resolves.toMatchObject({ created: [{ name: 'r0' }] })
})

test('an init that ends between keyring and marker leaves no repository that opens, and says what to do', async () => {
  const store = new MemoryObjectStore()
  await initUpToWrite(store, 2)
  const again = await init(placesOf(store)).catch((error: unknown) => error)
  expect(again).toBeInstanceOf(RepositoryExistsError)
  expect(again).toMatchObject({ hint: expect.stringContaining('remove them by hand') })
  for (const name of store.names('keys/')) store.lose(name)
  await expect(init(placesOf(store))).resolves.toMatchObject({ created: [{ name: 'r0' }] })
})

test('an init of two places that ended between them is finished by repeating it', async () => {
  const [first, second] = [new MemoryObjectStore(), new MemoryObjectStore()]
  second.faults.next('putIfAbsent', new StoreUnavailableError('put', 'memory://'))
  await expect(init(placesOf(first, second))).rejects.toThrow(StoreUnavailableError)
  const { set } = await init(placesOf(first, second))
  expect(set.repositories).toHaveLength(2)
})

test('a new set cannot have a pinned key: said before anything is written', async () => {
  const store = new MemoryObjectStore()
  const { set } = await newSampleSet()
  await expect(init(placesOf(store), [TEST_KEK], set.publicKey)).rejects.toThrow(SetMismatchError)
  expect(store.names()).toEqual([])
})

test('repositories of different sets, or of another key than the pinned one, do not open together', async () => {
  const [a, b] = [await newSampleSet(), await newSampleSet()]
  const mixed = placesOf(a.stores[0] as MemoryObjectStore, b.stores[0] as MemoryObjectStore)
  await expect(open(mixed)).rejects.toThrow(SetMismatchError)
  await expect(init([...mixed, ...placesOf(new MemoryObjectStore())])).rejects.toThrow(SetMismatchError)
  await expect(open(placesOf(a.stores[0] as MemoryObjectStore), b.set.publicKey)).rejects.toThrow(SetMismatchError)
})

test('a marker of another version is refused as that, a damaged one as damaged', async () => {
  const { stores } = await newSampleSet()
  const store = stores[0] as MemoryObjectStore
  const marker = JSON.parse(store.bytesOf('tidemark.json')?.toString() ?? '') as object
  const write = (value: object | string): void =>
    store.corrupt('tidemark.json', () => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)))
  write({ ...marker, version: 2, layout: 'new' })
  await expect(open(placesOf(store))).rejects.toThrow(FormatVersionError)
  await expect(open(placesOf(store))).rejects.toMatchObject({ code: 'REPOSITORY_VERSION', facts: { version: 2 } })
  for (const bad of [
    { ...marker, setId: 'x' },
    { ...marker, requires: 1 },
    { ...marker, publicKey: '' },
    'null',
    '',
    '{',
  ]) {
    write(bad)
    await expect(open(placesOf(store))).rejects.toThrow(DocumentDamagedError)
  }
})

test('one damaged copy of the keyring does not lock out the others, in either order', async () => {
  for (const damaged of [0, 1]) {
    const { stores, set, keys } = await newSampleSet([true, true])
    const [name = ''] = stores[damaged]?.names('keys/') ?? []
    stores[damaged]?.corrupt(name, (bytes) => void (bytes[100] = (bytes[100] ?? 0) ^ 1))
    const opened = await openKeys(set, [TEST_KEK], noDeadline)
    expect(opened.keyring.writeKey).toEqual(keys.keyring.writeKey)
    expect(opened.newest).toEqual(keys.newest)
    const joining = new MemoryObjectStore()
    await init([...placesOf(...stores), { name: 'r9', store: joining, required: true }])
    expect(joining.bytesOf(name)).toEqual(keys.newest.bytes)
  }
})

test('a keyring that is damaged everywhere is refused, a stray file beside it is not read', async () => {
  const { stores, set } = await newSampleSet([true, true])
  const [name = ''] = stores[0]?.names('keys/') ?? []
  await stores[0]?.put('keys/keyring-1-00112233.json.bak', Buffer.from('x'), { signal: noDeadline })
  await expect(openKeys(set, [TEST_KEK], noDeadline)).resolves.toBeDefined()
  for (const store of stores) store.corrupt(name, (bytes) => void (bytes[100] = (bytes[100] ?? 0) ^ 1))
  await expect(openKeys(set, [TEST_KEK], noDeadline)).rejects.toThrow(SignatureRefusedError)
})

test('an object too large to be a keyring is passed over without its bytes, and so is a marker refused', async () => {
  const { stores, set } = await newSampleSet([true, true])
  const huge = 'keys/keyring-5-dd.json'
  for (const store of stores) await store.put(huge, Buffer.alloc(MAX_BYTES.keyring + 1), { signal: noDeadline })
  const read: string[] = []
  const [store] = stores
  if (store !== undefined) store.faults.latency = (method, name) => void (method === 'get' && read.push(name ?? ''))
  expect((await openKeys(set, [TEST_KEK], noDeadline)).passedOver).toEqual([huge])
  expect(read).not.toContain(huge)
  stores[0]?.corrupt('tidemark.json', (bytes) => Buffer.concat([bytes, Buffer.alloc(MAX_BYTES.marker)]))
  await expect(openRepositorySet(set.repositories, undefined, noDeadline)).rejects.toMatchObject({
    code: 'OBJECT_TOO_LARGE',
  })
})

test('garbage, a renumbered copy and a replayed old keyring under keys/ are passed over and named', async () => {
  const { stores, set, keys } = await newSampleSet([true, true])
  const put = (store: number, name: string, bytes: Buffer): Promise<unknown> | undefined =>
    stores[store]?.put(name, bytes, { signal: noDeadline })
  const { bytes } = keys.newest
  const later = keys.keyring.signer.sign({
    ...(JSON.parse(bytes.toString().split('\n')[0] ?? '') as object),
    number: 2,
  })
  await put(0, 'keys/keyring-3-aa.json', Buffer.from('x'))
  await put(0, 'keys/keyring-9-bb.json', bytes)
  // A replay of the first keyring in the place of the second, in one repository; the other has the true one.
  await put(0, 'keys/keyring-2-cc.json', bytes)
  await put(1, 'keys/keyring-2-cc.json', later)
  const opened = await openKeys(set, [TEST_KEK], noDeadline)
  expect(opened.newest).toEqual({ name: 'keys/keyring-2-cc.json', bytes: later })
  expect(opened.passedOver).toEqual(['keys/keyring-2-cc.json', 'keys/keyring-3-aa.json', 'keys/keyring-9-bb.json'])
})

test('keys are read from whichever repository answers', async () => {
  const { stores, set, keys } = await newSampleSet([true, true])
  stores[0]?.faults.always('list', new StoreUnavailableError('list', 'memory://0'))
  expect((await openKeys(set, [TEST_KEK], noDeadline)).keyring.writeKey).toEqual(keys.keyring.writeKey)
  stores[1]?.faults.always('list', new StoreUnavailableError('list', 'memory://1'))
  await expect(openKeys(set, [TEST_KEK], noDeadline)).rejects.toThrow(StoreUnavailableError)
})

test('keys of another set open nothing here', async () => {
  const [a, b] = [await newSampleSet(), await newSampleSet()]
  expect(() => a.keys.keyring.dataKey(b.keys.keyring.writeKey.id)).toThrow(UnknownDataKeyError)
})
