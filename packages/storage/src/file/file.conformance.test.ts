import { execFileSync } from 'node:child_process'
import { constants } from 'node:fs'
import { chmod, mkdir, mkdtemp, open, readdir, rm, stat, symlink, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { hash, randomBytes, randomFillSync } from 'node:crypto'
import { MiB, pageAligned, systemClock } from '@tidemark/kernel'
import { expect, test } from 'vitest'
import {
  ObjectNotFoundError,
  StoreAccessDeniedError,
  StoreFullError,
  StoreMissingError,
  InvalidObjectNameError,
} from '../errors.ts'
import { collect } from '../testing/collect.ts'
import { describeObjectStore } from '../testing/conformance.ts'
import { ManualClock } from '../testing/manual-clock.ts'
import { FileObjectStore } from './file-object-store.ts'

const signal = new AbortController().signal
const isRoot = process.getuid?.() === 0

describeObjectStore('file', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'tidemark-file-'))
  return {
    store: await FileObjectStore.open(join(folder, 'new', 'root'), { create: true }),
    capabilities: { conditionalPut: true, checksumAtIngest: false },
    leftovers: () => readdir(join(folder, 'new', 'root', '.tmp')),
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true }),
  }
})

test('files are 0600, folders 0700, and the root is not made unless asked for', async () => {
  await using folder = await temporaryFolder()
  const root = join(folder.path, 'root')
  await expect(FileObjectStore.open(root)).rejects.toThrow(StoreMissingError)
  const store = await FileObjectStore.open(root, { create: true })
  await store.put('a/b', Buffer.from('x'), { signal })
  const mode = async (name: string): Promise<number> => (await stat(join(root, name))).mode & 0o777
  expect([await mode(''), await mode('a'), await mode('a/b'), await mode('.tmp')]).toEqual([0o700, 0o700, 0o600, 0o700])
})

test('a mount that does not answer when the store is opened is unavailable, not waited for', async () => {
  await using folder = await temporaryFolder()
  // Whatever the file system does, this clock says that the time is up.
  const clock = { ...systemClock, sleep: () => Promise.resolve() }
  const opening = FileObjectStore.open(folder.path, { clock })
  await expect(opening).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE', retry: 'backoff' })
})

test('when the root disappears every method says so: nothing looks merely absent', async () => {
  await using folder = await temporaryFolder()
  const root = join(folder.path, 'root')
  const store = await FileObjectStore.open(root, { create: true })
  await store.put('a/b', Buffer.from('x'), { signal })
  await rm(root, { recursive: true })
  const calls = [
    () => store.put('a/c', Buffer.from('x'), { signal }),
    () => store.putIfAbsent('c', Buffer.from('x'), { signal }),
    () => store.get('a/b', { signal }),
    () => store.stat('a/b', signal),
    () => collect(store.list('', { signal })),
    () => collect(store.list('a/', { signal })),
    () => collect(store.listFolders('a/', signal)),
    () => store.delete(['a/b'], signal),
    () => store.storeTime(signal),
    () => store.probe(signal),
  ]
  for (const call of calls) await expect(call()).rejects.toThrow(StoreMissingError)
  await mkdir(root) // the empty mount point of a disk that is not there
  await expect(store.put('a/c', Buffer.from('x'), { signal })).rejects.toThrow(StoreMissingError)
  expect(await readdir(root)).toEqual([])
})

test('symbolic links below the root are refused', async () => {
  await using folder = await temporaryFolder()
  const root = join(folder.path, 'root')
  const store = await FileObjectStore.open(root, { create: true })
  await writeFile(join(folder.path, 'secret'), 'secret')
  await symlink(folder.path, join(root, 'out'))
  await symlink(join(folder.path, 'secret'), join(root, 'file'))
  const calls = [
    () => store.put('out/x', Buffer.from('x'), { signal }),
    () => store.get('out/secret', { signal }),
    () => store.get('file', { signal }),
    () => store.stat('out/secret', signal),
    () => store.stat('file', signal),
    () => store.delete(['out/secret'], signal),
    () => collect(store.list('', { signal })),
    () => collect(store.list('out/', { signal })),
  ]
  for (const call of calls) await expect(call()).rejects.toThrow(StoreAccessDeniedError)
  expect(await readdir(folder.path)).toEqual(['root', 'secret'])
})

test('a file in the place of a folder makes the name invalid, and reads as absent', async () => {
  await using folder = await temporaryFolder()
  const store = await FileObjectStore.open(folder.path)
  await store.put('a', Buffer.from('x'), { signal })
  await expect(store.put('a/b', Buffer.from('x'), { signal })).rejects.toThrow(InvalidObjectNameError)
  await expect(store.get('a/b', { signal })).rejects.toThrow(ObjectNotFoundError)
  expect(await store.stat('a/b', signal)).toBeUndefined()
  await store.put('folder/x', Buffer.from('x'), { signal })
  await expect(store.putIfAbsent('folder', Buffer.from('x'), { signal })).rejects.toThrow(InvalidObjectNameError)
  await expect(store.get('folder', { signal })).rejects.toThrow(ObjectNotFoundError)
})

test.each([-400, 400])('a host whose clock is %i days off takes no temporary file of a living writer', async (days) => {
  await using folder = await temporaryFolder()
  await FileObjectStore.open(folder.path)
  await writeFile(join(folder.path, '.tmp', '1-aa'), 'half')
  const clock = new ManualClock(new Date(Date.now() + days * 86_400_000))
  await FileObjectStore.open(folder.path, { clock })
  expect(await readdir(join(folder.path, '.tmp'))).toEqual(['1-aa'])
})

test('temporary files of dead writers go after a day, foreign files are passed over', async () => {
  await using folder = await temporaryFolder()
  await FileObjectStore.open(folder.path)
  const [old, recent] = [join(folder.path, '.tmp', '1-aa'), join(folder.path, '.tmp', '1-bb')]
  await writeFile(old, 'x')
  await writeFile(recent, 'x')
  const dayAgo = new Date(Date.now() - 25 * 3600_000)
  await utimes(old, dayAgo, dayAgo)
  await mkdir(join(folder.path, 'lost+found'))
  await writeFile(join(folder.path, 'a note.txt'), 'x')
  const store = await FileObjectStore.open(folder.path)
  expect(await readdir(join(folder.path, '.tmp'))).toEqual(['1-bb'])
  expect(await collect(store.list('', { signal }))).toEqual([])
})

test('a full disk is reported as such, and takes no temporary file with it', async (context) => {
  context.skip(!isRoot, 'mounting a tiny tmpfs needs root')
  await using folder = await temporaryFolder()
  await using _mount = mountTmpfs(folder.path)
  const store = await FileObjectStore.open(folder.path)
  await store.put('small', randomBytes(1000), { signal })
  await expect(store.put('big', randomBytes(2 * MiB), { signal })).rejects.toThrow(StoreFullError)
  await expect(store.putIfAbsent('big', randomBytes(2 * MiB), { signal })).rejects.toThrow(StoreFullError)
  expect(await readdir(join(folder.path, '.tmp'))).toEqual([])
  expect((await collect(store.list('', { signal }))).map(({ name }) => name)).toEqual(['small'])
})

test('a read-only file system can be read, and refuses puts', async (context) => {
  context.skip(!isRoot, 'remounting needs root')
  await using folder = await temporaryFolder()
  await using _mount = mountTmpfs(folder.path)
  const writable = await FileObjectStore.open(folder.path)
  await writable.put('a', Buffer.from('x'), { signal })
  execFileSync('mount', ['-o', 'remount,ro', folder.path])
  const store = await FileObjectStore.open(folder.path)
  expect(String(await store.get('a', { signal }))).toBe('x')
  await expect(store.put('b', Buffer.from('x'), { signal })).rejects.toThrow(StoreAccessDeniedError)
  await expect(store.delete(['a'], signal)).rejects.toThrow(StoreAccessDeniedError)
  await expect(store.probe(signal)).rejects.toThrow(StoreAccessDeniedError)
})

test('a folder of another owner is refused', async (context) => {
  context.skip(isRoot, 'root may write everywhere')
  await using folder = await temporaryFolder()
  const store = await FileObjectStore.open(folder.path)
  await store.put('a/x', Buffer.from('x'), { signal })
  await chmod(join(folder.path, 'a'), 0o500)
  await expect(store.put('a/y', Buffer.from('x'), { signal })).rejects.toThrow(StoreAccessDeniedError)
  expect(await readdir(join(folder.path, '.tmp'))).toEqual([])
  await chmod(join(folder.path, 'a'), 0o000)
  await expect(store.stat('a/x', signal)).rejects.toThrow(StoreAccessDeniedError)
  await expect(collect(store.list('', { signal }))).rejects.toThrow(StoreAccessDeniedError)
  await chmod(join(folder.path, 'a'), 0o700)
})

/** @returns what is left in the folder for unfinished objects. */
async function storeAligned(root: string): Promise<string[]> {
  const store = await FileObjectStore.open(root, { create: true })
  for (const bytes of [1 * MiB, 5 * MiB + 4097, 9 * MiB - 1]) {
    const memory = pageAligned(bytes)
    const object = randomFillSync(memory).subarray(0, bytes)
    const sha256 = hash('sha256', object)
    await store.put(`aligned/${bytes}`, object, { signal })
    const into = pageAligned(bytes)
    const whole = await store.get(`aligned/${bytes}`, { signal, into, maxBytes: bytes, uncached: true })
    expect(hash('sha256', whole)).toBe(sha256)
    const range = { offset: 8192, length: 10_001 }
    const part = await store.get(`aligned/${bytes}`, { signal, into, range, uncached: true })
    expect(part.equals(object.subarray(8192, 8192 + 10_001))).toBe(true)
    const past = { offset: bytes + 4096 - (bytes % 4096), length: 5 }
    expect(await store.get(`aligned/${bytes}`, { signal, into, range: past, uncached: true })).toHaveLength(0)
  }
  return readdir(join(root, '.tmp'))
}

test('large objects in aligned memory are stored and read past the cache, to the last byte', async () => {
  await using folder = await temporaryFolder()
  expect(await storeAligned(join(folder.path, 'root'))).toEqual([])
})

test.skipIf(!isRoot)(
  'and in the ordinary way where the file system cannot do that (needs root, to mount one)',
  async () => {
    await using folder = await temporaryFolder()
    // It has a cache and nothing else.
    execFileSync('mount', ['-t', 'ramfs', 'ramfs', folder.path])
    try {
      await expect(open(join(folder.path, 'x'), constants.O_CREAT + constants.O_DIRECT)).rejects.toThrow('EINVAL')
      expect(await storeAligned(join(folder.path, 'root'))).toEqual([])
    } finally {
      execFileSync('umount', [folder.path])
    }
  },
)

async function temporaryFolder(): Promise<{ path: string } & AsyncDisposable> {
  const path = await mkdtemp(join(tmpdir(), 'tidemark-file-'))
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true }) }
}

function mountTmpfs(path: string): AsyncDisposable {
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m,mode=0700', 'tmpfs', path])
  return { [Symbol.asyncDispose]: async () => void execFileSync('umount', [path]) }
}
