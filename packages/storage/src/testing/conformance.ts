/**
 * The obligations of the ObjectStore port, as one suite that every driver passes.
 *
 * What a store cannot promise is stated by its capabilities, and the suite then says what is lost
 * instead of looking away.
 */
import { createHash, randomBytes } from 'node:crypto'
import { AbortedError, MiB, OperationalError } from '@tidemark/kernel'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ChecksumRefusedError, InvalidObjectNameError, ObjectNotFoundError, ObjectTooLargeError } from '../errors.ts'
import type { ObjectEntry, ObjectStore, StoreCapabilities } from '../object-store.ts'
import { collect } from './collect.ts'

export interface StoreUnderTest extends AsyncDisposable {
  readonly store: ObjectStore
  /** What this store is known to enforce; `probe` has to find exactly this. */
  readonly capabilities: StoreCapabilities
  /** What lies in the store besides its objects: unfinished uploads, temporary files. */
  leftovers?(): Promise<readonly string[]>
}

const signal = new AbortController().signal

class JobDeadlineError extends OperationalError {
  override readonly code = 'JOB_DEADLINE'
  override readonly retry = 'backoff'
}

export function describeObjectStore(driver: string, makeStore: () => Promise<StoreUnderTest>): void {
  describe(`object store: ${driver}`, () => {
    let subject: StoreUnderTest
    let store: ObjectStore
    beforeAll(async () => {
      subject = await makeStore()
      store = subject.store
    })
    afterAll(async () => {
      await store[Symbol.asyncDispose]()
      await subject[Symbol.asyncDispose]()
    })
    const listed = async (prefix: string, startAfter?: string): Promise<string[]> =>
      namesOf(await collect(store.list(prefix, { signal, ...(startAfter !== undefined && { startAfter }) })))
    let folders = 0
    const folder = (): string => `t${(folders += 1)}/`

    test('what was put can be read, looked at and listed at once', async () => {
      const name = `${folder()}a/b=c_d.e-f`
      const bytes = randomBytes(1000)
      const before = Date.now()
      await store.put(name, bytes, { signal })
      expect(await store.get(name, { signal })).toEqual(bytes)
      const entry = await store.stat(name, signal)
      expect(entry).toMatchObject({ name, size: 1000 })
      expect(Math.abs((entry?.modifiedAt.getTime() ?? 0) - before)).toBeLessThan(3600_000)
      expect((await collect(store.list(name, { signal }))).map(({ name, size }) => ({ name, size }))).toEqual([
        { name, size: 1000 },
      ])
    })

    test('putting the same bytes again is no error', async () => {
      const name = `${folder()}again`
      await store.put(name, Buffer.from('same'), { signal })
      await store.put(name, Buffer.from('same'), { signal })
      expect(await store.get(name, { signal })).toEqual(Buffer.from('same'))
    })

    test('the caller may reuse its bytes once a put has resolved', async () => {
      const name = `${folder()}reused`
      const bytes = Buffer.alloc(100_000, 1)
      await store.put(name, bytes, { signal })
      bytes.fill(2)
      expect(await store.get(name, { signal })).toEqual(Buffer.alloc(100_000, 1))
    })

    test('a view into a larger buffer is stored as that view alone', async () => {
      const name = `${folder()}view`
      const whole = randomBytes(3000)
      await store.put(name, new Uint8Array(whole.buffer, whole.byteOffset + 1000, 1000), { signal })
      expect(await store.get(name, { signal })).toEqual(whole.subarray(1000, 2000))
    })

    test('an empty object is an object', async () => {
      const name = `${folder()}empty`
      expect(await store.putIfAbsent(name, Buffer.alloc(0), { signal })).toBe('stored')
      expect(await store.get(name, { signal })).toHaveLength(0)
      expect(await store.get(name, { signal, range: { offset: 0, length: 10 } })).toHaveLength(0)
      expect(await store.stat(name, signal)).toMatchObject({ size: 0 })
    })

    test('a reader during a put of 33 MiB sees all of it or nothing', async () => {
      const name = `${folder()}big`
      const bytes = randomBytes(33 * MiB)
      const sha256 = createHash('sha256').update(bytes).digest('hex')
      const progress = { done: false }
      const put = store.put(name, bytes, { signal, sha256 }).finally(() => (progress.done = true))
      const sizes = new Set<number | undefined>()
      while (!progress.done) sizes.add((await store.stat(name, signal))?.size)
      await put
      sizes.delete(undefined)
      expect([...sizes].filter((size) => size !== bytes.length)).toEqual([])
      expect((await store.get(name, { signal })).equals(bytes)).toBe(true)
      const range = { offset: 20 * MiB + 1, length: 5 * MiB }
      const part = bytes.subarray(range.offset, range.offset + range.length)
      expect((await store.get(name, { signal, range })).equals(part)).toBe(true)
    })

    test('putIfAbsent leaves what is there untouched', async () => {
      const name = `${folder()}once`
      expect(await store.putIfAbsent(name, Buffer.from('first'), { signal })).toBe('stored')
      expect(await store.putIfAbsent(name, Buffer.from('second'), { signal })).toBe('exists')
      expect(await store.putIfAbsent(name, Buffer.from('first'), { signal })).toBe('exists')
      expect(await store.get(name, { signal })).toEqual(Buffer.from('first'))
    })

    test('of 20 racing callers of putIfAbsent one is told "stored", and its bytes are the ones that stay', async () => {
      const { conditionalPut } = await store.probe(signal)
      const name = `${folder()}raced`
      const offers = Array.from({ length: 20 }, (_, n) => Buffer.from(`caller ${n}`))
      const answers = await Promise.all(offers.map((bytes) => store.putIfAbsent(name, bytes, { signal })))
      const winners = offers.filter((_, n) => answers[n] === 'stored').map(String)
      expect(winners.length).toBeGreaterThan(0)
      // Without conditional put more than one may be told so: commits then need unique names and a look.
      expect(winners.length).toBeLessThanOrEqual(conditionalPut ? 1 : offers.length)
      expect(winners).toContain(String(await store.get(name, { signal })))
    })

    test('the probe finds what the store enforces and leaves nothing behind', async () => {
      expect(await store.probe(signal)).toEqual(subject.capabilities)
      expect(await collect(store.list('scratch/', { signal }))).toEqual([])
      expect((await subject.leftovers?.()) ?? []).toEqual([])
    })

    test('where checksums are checked at ingest, other bytes than announced are refused and not stored', async () => {
      if (!subject.capabilities.checksumAtIngest) return
      const name = `${folder()}damaged`
      const sha256 = createHash('sha256').update('announced').digest('hex')
      await expect(store.put(name, Buffer.from('delivered'), { signal, sha256 })).rejects.toThrow(ChecksumRefusedError)
      expect(await store.stat(name, signal)).toBeUndefined()
    })

    test('a range gives the bytes asked for, fewer at the end and none beyond it', async () => {
      const name = `${folder()}ranged`
      const bytes = randomBytes(100)
      await store.put(name, bytes, { signal })
      for (const [offset, length] of [
        [0, 100],
        [0, 1],
        [99, 1],
        [10, 50],
        [90, 50],
        [0, 1000],
        [100, 1],
        [5000, 10],
        [10, 0],
      ] as const) {
        const range = { offset, length }
        expect(await store.get(name, { signal, range })).toEqual(bytes.subarray(offset, offset + length))
      }
    })

    test('more bytes than the reader allows are refused, and as many as it allows are given', async () => {
      const name = `${folder()}bounded`
      const bytes = randomBytes(100)
      await store.put(name, bytes, { signal })
      await expect(store.get(name, { signal, maxBytes: 99 })).rejects.toThrow(ObjectTooLargeError)
      await expect(store.get(name, { signal, into: Buffer.alloc(99) })).rejects.toThrow(ObjectTooLargeError)
      expect(await store.get(name, { signal, maxBytes: 100 })).toEqual(bytes)
      const range = { offset: 90, length: 50 }
      expect(await store.get(name, { signal, range, maxBytes: 10 })).toEqual(bytes.subarray(90))
      await expect(store.get(name, { signal, range, maxBytes: 9 })).rejects.toThrow(ObjectTooLargeError)
    })

    test("bytes go into the reader's own buffer where it has one, and nowhere else in it", async () => {
      const name = `${folder()}into`
      const bytes = randomBytes(100)
      await store.put(name, bytes, { signal })
      const whole = Buffer.alloc(200, 7)
      const into = whole.subarray(20, 180)
      const got = await store.get(name, { signal, into })
      expect(got).toEqual(bytes)
      expect([got.buffer === whole.buffer, got.byteOffset - whole.byteOffset]).toEqual([true, 20])
      expect(whole).toEqual(Buffer.concat([Buffer.alloc(20, 7), bytes, Buffer.alloc(80, 7)]))
      expect(await store.get(name, { signal, into, range: { offset: 50, length: 10 } })).toEqual(bytes.subarray(50, 60))
    })

    test('an unknown object is not found by get and undefined for stat', async () => {
      const name = `${folder()}deep/er/absent`
      await expect(store.get(name, { signal })).rejects.toThrow(ObjectNotFoundError)
      await expect(store.get(name, { signal, range: { offset: 0, length: 5 } })).rejects.toThrow(ObjectNotFoundError)
      await expect(store.get(name, { signal, range: { offset: 0, length: 0 } })).rejects.toThrow(ObjectNotFoundError)
      expect(await store.stat(name, signal)).toBeUndefined()
    })

    test('listing is in byte order of the whole names, whatever the folders', async () => {
      const root = folder()
      const names = [
        'a-b/x',
        'a.json',
        'a/x',
        'a/x-',
        'a/x.y/z',
        'a/xx/z',
        'a0',
        'a=/x',
        'aB',
        'a_',
        'b',
        'A',
        '0',
        'Z/z',
      ]
      await Promise.all(names.map((name) => store.put(root + name, Buffer.from(name), { signal })))
      const sorted = names.map((name) => root + name).sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
      expect(await listed(root)).toEqual(sorted)
      for (const prefix of ['a', 'a/', 'a/x', 'a/x/', 'a/x.', 'b', 'c', 'Z', 'a/nothing/']) {
        expect(await listed(root + prefix)).toEqual(sorted.filter((name) => name.startsWith(root + prefix)))
      }
      for (const after of ['a', 'a/', 'a/x', 'a/x/', 'a/x/y', 'a-b', 'a-b/x', 'aB', 'zz', '!']) {
        expect(await listed(root, root + after)).toEqual(sorted.filter((name) => name > root + after))
      }
      expect(await listed(`${root}a`, `${root}a/x`)).toEqual(
        sorted.filter((name) => name.startsWith(`${root}a`) && name > `${root}a/x`),
      )
    })

    test("the store's time is the one that objects get, whatever this host's clock says", async () => {
      const root = folder()
      const before = await store.storeTime(signal)
      await store.put(`${root}x`, Buffer.from('x'), { signal })
      const after = await store.storeTime(signal)
      const [entry] = await collect(store.list(root, { signal }))
      const givenMs = entry?.modifiedAt.getTime() ?? Number.NaN
      // S3 has whole seconds, some stores round them up.
      expect(givenMs).toBeGreaterThanOrEqual(before.getTime() - 1000)
      expect(givenMs).toBeLessThanOrEqual(after.getTime() + 1000)
      expect(after.getTime()).toBeGreaterThanOrEqual(before.getTime())
      expect((await subject.leftovers?.()) ?? []).toEqual([])
    })

    test('more than a page of objects is listed whole, and from the middle', async () => {
      const root = folder()
      const names = Array.from(
        { length: 1203 },
        (_, n) => `${root}f${n % 7}/${String(n * 7919).padStart(8, '0')}`,
      ).sort()
      for (let first = 0; first < names.length; first += 40) {
        const some = names.slice(first, first + 40)
        await Promise.all(some.map((name) => store.put(name, Buffer.from('x'), { signal })))
      }
      expect(namesOf(await collect(store.list(root, { signal })))).toEqual(names)
      const startAfter = names[1100] ?? ''
      expect(namesOf(await collect(store.list(root, { signal, startAfter })))).toEqual(names.slice(1101))
      for await (const first of store.list(root, { signal })) {
        expect(first.name).toBe(names[0])
        break // a consumer may stop early
      }
      await store.delete(names, signal)
      expect(await collect(store.list(root, { signal }))).toEqual([])
    })

    test('folders are the distinct next parts, and exist as long as an object below them does', async () => {
      const root = folder()
      const names = ['a-b/x', 'a/x', 'a/y/z', 'b/c/d/e', 'plain', 'a.json']
      for (const name of names) await store.put(root + name, Buffer.from(name), { signal })
      expect(await collect(store.listFolders(root, signal))).toEqual(['a-b/', 'a/', 'b/'].map((name) => root + name))
      expect(await collect(store.listFolders(`${root}a/`, signal))).toEqual([`${root}a/y/`])
      expect(await collect(store.listFolders(`${root}nothing/`, signal))).toEqual([])
      expect(await collect(store.listFolders('', signal))).toContain(root)
      await store.delete([`${root}b/c/d/e`], signal)
      expect(await collect(store.listFolders(root, signal))).toEqual([`${root}a-b/`, `${root}a/`])
    })

    test('delete removes what is named, absent names included, and nothing else', async () => {
      const root = folder()
      for (const name of ['x/1', 'x/2', 'y']) await store.put(root + name, Buffer.from(name), { signal })
      await store.delete([`${root}x/1`, `${root}absent`, `${root}no/such/folder`], signal)
      await store.delete([], signal)
      expect(namesOf(await collect(store.list(root, { signal })))).toEqual([`${root}x/2`, `${root}y`])
      await store.delete([`${root}x/2`], signal)
      await store.put(`${root}x/3`, Buffer.from('the folder comes back'), { signal })
      expect(namesOf(await collect(store.list(root, { signal })))).toEqual([`${root}x/3`, `${root}y`])
    })

    test('puts into a folder that deletes are emptying all arrive', async () => {
      const root = folder()
      const names = Array.from({ length: 60 }, (_, n) => `${root}busy/folder/${n}`)
      for (const name of names) {
        await Promise.all([
          store.put(name, Buffer.from('x'), { signal }),
          store.delete([`${root}busy/folder/${Number(name.split('/').at(-1)) - 1}`], signal),
        ])
      }
      expect(namesOf(await collect(store.list(root, { signal })))).toEqual([names.at(-1)])
    })

    test.each([
      '',
      '/a',
      'a/',
      'a//b',
      '../a',
      'a/../b',
      'a/./b',
      'a b',
      'ä',
      'a\0',
      'a\\b',
      '.tmp/x',
      'a'.repeat(701),
    ])('the name %j is refused by every method', async (name) => {
      const calls = [
        () => store.put(name, Buffer.from('x'), { signal }),
        () => store.putIfAbsent(name, Buffer.from('x'), { signal }),
        () => store.get(name, { signal }),
        () => store.stat(name, signal),
        () => store.delete([name], signal),
      ]
      for (const call of calls) await expect(call()).rejects.toThrow(InvalidObjectNameError)
    })

    test('every method rejects at once when its signal has fired, and nothing is left', async () => {
      const root = folder()
      await store.put(`${root}kept`, Buffer.from('kept'), { signal })
      const fired = AbortSignal.abort()
      const calls = [
        () => store.put(`${root}a`, Buffer.from('x'), { signal: fired }),
        () => store.putIfAbsent(`${root}b`, Buffer.from('x'), { signal: fired }),
        () => store.get(`${root}kept`, { signal: fired }),
        () => store.stat(`${root}kept`, fired),
        () => collect(store.list(root, { signal: fired })),
        () => collect(store.listFolders('', fired)),
        () => store.delete([`${root}kept`], fired),
        () => store.storeTime(fired),
        () => store.probe(fired),
      ]
      for (const call of calls) await expect(call()).rejects.toThrow(AbortedError)
      expect(namesOf(await collect(store.list(root, { signal })))).toEqual([`${root}kept`])
      expect((await subject.leftovers?.()) ?? []).toEqual([])
    })

    test('a put that is aborted on its way leaves the whole object or nothing', async () => {
      const root = folder()
      const bytes = randomBytes(33 * MiB)
      for (const delayMs of [0, 1, 5, 20, 60]) {
        const controller = new AbortController()
        const put = store.put(`${root}${delayMs}`, bytes, { signal: controller.signal })
        setTimeout(() => controller.abort(), delayMs)
        const outcome = await put.then(
          () => 'stored',
          (error: unknown) => (error instanceof AbortedError ? 'aborted' : error),
        )
        expect(['stored', 'aborted']).toContain(outcome)
      }
      for (const { name } of await collect(store.list(root, { signal }))) {
        expect((await store.get(name, { signal })).equals(bytes)).toBe(true)
      }
      expect((await subject.leftovers?.()) ?? []).toEqual([])
    })

    test("a deadline of the caller's arrives as the caller's own error", async () => {
      const late = new JobDeadlineError('the job has used up its time', { hint: 'none' })
      await expect(store.stat(`${folder()}x`, AbortSignal.abort(late))).rejects.toBe(late)
      await expect(store.get(`${folder()}x`, { signal: AbortSignal.abort(late) })).rejects.toBe(late)
    })
  })
}

function namesOf(entries: readonly ObjectEntry[]): string[] {
  return entries.map(({ name }) => name)
}
