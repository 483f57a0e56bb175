import { expect, test } from 'vitest'
import { OperationalError } from '../errors.ts'
import type { EchoRequest } from './echo-thread.test-support.ts'
import { ThreadPool } from './thread-pool.ts'

const MODULE = new URL('./echo-thread.test-support.ts', import.meta.url)
const newPool = (size = 2): ThreadPool<EchoRequest, unknown> => new ThreadPool(MODULE, { greeting: 'ahoy' }, size)

test('a request is answered, and buffers are handed over both ways, not copied', async () => {
  await using pool = newPool()
  const bytes = new Uint8Array([1, 2, 3]).buffer
  const reply = await pool.call({ type: 'echo', bytes }, [bytes])
  expect(bytes.byteLength).toBe(0)
  expect(reply).toEqual({ greeting: 'ahoy', bytes: new Uint8Array([1, 2, 3]).buffer })
})

test('a failing request ends alone: an operational error keeps its code, a bug its message and place', async () => {
  await using pool = newPool(1)
  const operational = await pool.call({ type: 'operational' }).catch((error: unknown) => error)
  expect(operational).toBeInstanceOf(OperationalError)
  expect(operational).toMatchObject({ code: 'ABORTED', retry: 'backoff' })
  const bug = await pool.call({ type: 'bug' }).catch((error: unknown) => error)
  expect(bug).not.toBeInstanceOf(OperationalError)
  expect(bug).toMatchObject({ message: 'echo is not a function' })
  expect((bug as Error).stack).toContain('echo-thread')
  await expect(pool.call({ type: 'unclonable' })).rejects.toThrow(/could not be cloned/)
  expect(await pool.call({ type: 'who' })).toEqual(expect.any(Number))
})

test('work is spread over the threads, and a named thread is obeyed', async () => {
  await using pool = newPool(2)
  const spread = await Promise.all([pool.call({ type: 'who' }), pool.call({ type: 'who' })])
  expect(new Set(spread).size).toBe(2)
  const named = await Promise.all([0, 0, 1].map((thread) => pool.call({ type: 'who' }, [], thread)))
  expect(named[0]).toBe(named[1])
  expect(named[2]).not.toBe(named[0])
})

test('a thread that ends by itself fails everything that waits, and everything after', async () => {
  await using pool = newPool(1)
  const waiting = [pool.call({ type: 'end' }), pool.call({ type: 'who' })]
  const outcomes = await Promise.allSettled(waiting)
  expect(outcomes.map(({ status }) => status)).toEqual(['rejected', 'rejected'])
  await expect(pool.call({ type: 'who' })).rejects.toThrow('ended by itself with code 3')
})

test('closing the pool leaves nobody waiting and no thread', async () => {
  const pool = newPool(2)
  const waiting = Promise.allSettled([pool.call({ type: 'who' }), pool.call({ type: 'bug' })])
  await pool[Symbol.asyncDispose]()
  await waiting
  await expect(pool.call({ type: 'who' })).rejects.toThrow('closed')
  expect((process.report.getReport() as { workers: unknown[] }).workers).toEqual([])
})
