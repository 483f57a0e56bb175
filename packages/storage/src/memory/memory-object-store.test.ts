import { expect, test } from 'vitest'
import { StoreUnavailableError } from '../errors.ts'
import { ManualClock } from '../testing/manual-clock.ts'
import { MemoryObjectStore } from './memory-object-store.ts'

const signal = new AbortController().signal
const outage = new StoreUnavailableError('test', 'memory://')

test('a scripted fault strikes once, before or after the call takes effect', async () => {
  const store = new MemoryObjectStore()
  store.faults.next('put', outage)
  await expect(store.put('a', Buffer.from('a'), { signal })).rejects.toBe(outage)
  expect(store.names()).toEqual([])
  store.faults.next('put', outage, { when: 'after' })
  await expect(store.put('a', Buffer.from('a'), { signal })).rejects.toBe(outage)
  expect(store.names()).toEqual(['a'])
  await store.put('b', Buffer.from('b'), { signal })
  expect(store.names()).toEqual(['a', 'b'])
})

test('a fault can be bound to names and last', async () => {
  const store = new MemoryObjectStore()
  store.faults.always('get', outage, { name: /^wal\// })
  await store.put('wal/1', Buffer.from('1'), { signal })
  await store.put('base/1', Buffer.from('1'), { signal })
  await expect(store.get('wal/1', { signal })).rejects.toBe(outage)
  await expect(store.get('wal/1', { signal })).rejects.toBe(outage)
  expect(String(await store.get('base/1', { signal }))).toBe('1')
  store.faults.clear()
  expect(String(await store.get('wal/1', { signal }))).toBe('1')
})

test('a call that hangs ends at its deadline', async () => {
  const clock = new ManualClock()
  const store = new MemoryObjectStore({ clock, deadlineMs: 5000 })
  store.faults.latency = () => new Promise(() => {})
  const call = store.stat('a', signal)
  clock.advance(5000)
  await expect(call).rejects.toThrow(StoreUnavailableError)
  expect(clock.sleepingMs).toEqual([])
})

test('damage and loss are silent until somebody reads', async () => {
  const clock = new ManualClock()
  const store = new MemoryObjectStore({ clock })
  await store.put('a', Buffer.from('abc'), { signal })
  store.corrupt('a', (bytes) => void (bytes[1] = 0x78))
  expect(String(await store.get('a', { signal }))).toBe('axc')
  clock.shift(-60_000)
  await store.put('b', Buffer.from('b'), { signal })
  const [a, b] = [await store.stat('a', signal), await store.stat('b', signal)]
  expect((a?.modifiedAt.getTime() ?? 0) - (b?.modifiedAt.getTime() ?? 0)).toBe(60_000)
  store.lose('a')
  expect(await store.stat('a', signal)).toBeUndefined()
})
