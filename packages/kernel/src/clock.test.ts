import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { systemClock } from './clock.ts'

beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] }))
afterEach(() => void vi.useRealTimers())

test('a sleep ends when its time has come, and takes its listener along', async () => {
  const stop = new AbortController()
  const removed = vi.spyOn(stop.signal, 'removeEventListener')
  let awake = false
  const sleep = systemClock.sleep(1000, stop.signal).then(() => (awake = true))
  await vi.advanceTimersByTimeAsync(999)
  expect(awake).toBe(false)
  await vi.advanceTimersByTimeAsync(1)
  await sleep
  expect(removed).toHaveBeenCalledOnce()
})

test('an abort ends a sleep at once, with its reason, and leaves no timer', async () => {
  const stop = new AbortController()
  const sleep = systemClock.sleep(1e6, stop.signal)
  stop.abort()
  await expect(sleep).rejects.toMatchObject({ code: 'ABORTED' })
  expect(vi.getTimerCount()).toBe(0)
})

test('a sleep under a signal that has fired does not begin', async () => {
  await expect(systemClock.sleep(1e6, AbortSignal.abort())).rejects.toMatchObject({ code: 'ABORTED' })
  expect(vi.getTimerCount()).toBe(0)
})

test('the monotonic clock does not go back', () => {
  let last = systemClock.monotonicMs()
  for (let i = 0; i < 1000; i += 1) {
    const next = systemClock.monotonicMs()
    expect(next).toBeGreaterThanOrEqual(last)
    last = next
  }
})
