import { createHash } from 'node:crypto'
import { MemoryObjectStore } from '@tidemark/storage/testing'
import { expect, test } from 'vitest'
import { StoredOtherwiseError } from '../errors.ts'
import { isToBeReadBack, readBack } from './read-back.ts'

const signal = new AbortController().signal
const bytes = Buffer.alloc(9 * 1024 * 1024 + 7, 'tide')
const sha256 = createHash('sha256').update(bytes).digest('hex')
const placeOf = (store: MemoryObjectStore) => ({ name: 'local', store, required: true })

test('an object that is stored as it was given passes, whatever its size', async () => {
  const store = new MemoryObjectStore()
  await store.put('pack', bytes, { signal })
  await store.put('empty', Buffer.alloc(0), { signal })

  const empty = createHash('sha256').digest('hex')
  await expect(readBack(placeOf(store), 'pack', bytes.length, sha256, signal)).resolves.toBeUndefined()
  await expect(readBack(placeOf(store), 'empty', 0, empty, signal)).resolves.toBeUndefined()
})

test.each([
  [
    'one flipped bit',
    (stored: Buffer) => Buffer.concat([stored.subarray(0, -1), Buffer.from([(stored.at(-1) ?? 0) ^ 1])]),
  ],
  ['a missing end', (stored: Buffer) => stored.subarray(0, -1)],
  ['a byte too many', (stored: Buffer) => Buffer.concat([stored, Buffer.from('x')])],
])('an object that is stored with %s is refused', async (_what, damage) => {
  const store = new MemoryObjectStore()
  await store.put('pack', bytes, { signal })
  store.corrupt('pack', damage)

  await expect(readBack(placeOf(store), 'pack', bytes.length, sha256, signal)).rejects.toThrow(StoredOtherwiseError)
})

test('everything is read back from a store that is not known to check what it gets', () => {
  const store = new MemoryObjectStore()
  const unchecked = { conditionalPut: true, checksumAtIngest: false }
  for (let i = 0; i < 200; i += 1) {
    expect(isToBeReadBack(placeOf(store))).toBe(true)
    expect(isToBeReadBack({ ...placeOf(store), capabilities: unchecked })).toBe(true)
  }
})
