import { expect, test } from 'vitest'
import { runBounded } from './run-bounded.ts'

const noDeadline = new AbortController().signal
const numbers = (count: number): Iterator<number> => Array.from({ length: count }, (_, i) => i).values()

test('every item is done once, and never more at once than allowed', async () => {
  for (const atOnce of [1, 3, 50]) {
    const done: number[] = []
    let running = 0
    let most = 0
    await runBounded(numbers(20), atOnce, noDeadline, async (item) => {
      running += 1
      most = Math.max(most, running)
      await new Promise(setImmediate)
      done.push(item)
      running -= 1
    })
    expect(done.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 20 }, (_, i) => i))
    expect(most).toBe(Math.min(atOnce, 20))
  }
})

test('the first failure stops new tasks, aborts running ones, waits for them, and is thrown', async () => {
  const failure = new Error('first')
  const ended: number[] = []
  const failed = runBounded(numbers(100), 3, noDeadline, async (item, signal) => {
    if (item === 1) throw failure
    await new Promise((resolve) => signal.addEventListener('abort', resolve))
    await new Promise(setImmediate)
    ended.push(item)
    throw new Error('a consequence')
  })
  await expect(failed).rejects.toBe(failure)
  expect(ended).toEqual([0, 2])
})

test('an abort ends it with the reason of the signal, not with what it caused', async () => {
  const stop = new AbortController()
  const started: number[] = []
  const aborted = runBounded(numbers(100), 2, stop.signal, async (item, signal) => {
    started.push(item)
    if (item === 1) stop.abort()
    signal.throwIfAborted()
    await new Promise((resolve) => signal.addEventListener('abort', resolve))
  })
  await expect(aborted).rejects.toMatchObject({ code: 'ABORTED' })
  expect(started).toEqual([0, 1])
  let begun = 0
  const before = runBounded(numbers(5), 2, AbortSignal.abort(), async () => void (begun += 1))
  await expect(before).rejects.toMatchObject({ code: 'ABORTED' })
  expect(begun).toBe(0)
})
