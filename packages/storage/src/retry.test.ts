import { silentLogger } from '@tidemark/kernel'
import { expect, test } from 'vitest'
import { ObjectNotFoundError, StoreUnavailableError } from './errors.ts'
import { DEFAULT_RETRY, Retry } from './retry.ts'
import { ManualClock } from './testing/manual-clock.ts'

const signal = new AbortController().signal
const outage = new StoreUnavailableError('test', 'test://')

function retryWith(policy: Partial<typeof DEFAULT_RETRY>, random = () => 1): { retry: Retry; clock: ManualClock } {
  const clock = new ManualClock()
  return { clock, retry: new Retry({ clock, logger: silentLogger, policy: { ...DEFAULT_RETRY, ...policy }, random }) }
}

test('delays double up to the cap', async () => {
  const { retry, clock } = retryWith({ attempts: 6, baseMs: 100, capMs: 1000 })
  const run = retry.run('test', signal, async () => Promise.reject(outage)).catch((error: unknown) => error)
  for (const delayMs of [200, 400, 800, 1000, 1000]) {
    await expect.poll(() => clock.sleepingMs).toEqual([delayMs])
    clock.advance(delayMs)
  }
  expect(await run).toBe(outage)
})

test('what is not a passing trouble is not tried again', async () => {
  const { retry } = retryWith({})
  const error = new ObjectNotFoundError('a', 'test://')
  let attempts = 0
  const run = retry.run('test', signal, async () => {
    attempts += 1
    throw error
  })
  await expect(run).rejects.toBe(error)
  expect(attempts).toBe(1)
})

test('once the common budget is spent a call gets one attempt, until others succeed', async () => {
  let attempts = 0
  const failing = (): Promise<never> => {
    attempts += 1
    return Promise.reject(new StoreUnavailableError('test', 'test://', { retryAfterMs: 0 }))
  }
  const retry = new Retry({
    clock: { now: () => new Date(0), monotonicMs: () => 0, sleep: async () => {} },
    logger: silentLogger,
    policy: { ...DEFAULT_RETRY, budget: 2, attempts: 10 },
  })
  await expect(retry.run('test', signal, failing)).rejects.toThrow(StoreUnavailableError)
  expect(attempts).toBe(3)
  attempts = 0
  await expect(retry.run('test', signal, failing)).rejects.toThrow(StoreUnavailableError)
  expect(attempts).toBe(1)
  await retry.run('test', signal, async () => 'fine')
  attempts = 0
  await expect(retry.run('test', signal, failing)).rejects.toThrow(StoreUnavailableError)
  expect(attempts).toBe(2)
})

test('no attempt starts after the time of the call is over', async () => {
  const { retry, clock } = retryWith({ callMs: 500, baseMs: 100, attempts: 10 })
  const run = retry.run('test', signal, async () => Promise.reject(outage)).catch((error: unknown) => error)
  await expect.poll(() => clock.sleepingMs).toEqual([200])
  clock.advance(200)
  expect(await run).toBe(outage)
})
