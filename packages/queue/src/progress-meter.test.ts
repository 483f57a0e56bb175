import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import type { OperationProgress } from '@tidemark/contracts'
import type { Clock } from '@tidemark/kernel'
import { ProgressMeter, throttleProgress } from './progress-meter.ts'

class TestClock implements Clock {
  nowMs = 0
  now(): Date {
    return new Date(this.nowMs)
  }
  monotonicMs(): number {
    return this.nowMs
  }
  async sleep(): Promise<void> {}
}

let clock: TestClock
beforeEach(() => {
  clock = new TestClock()
  vi.useFakeTimers()
})
afterEach(() => {
  vi.useRealTimers()
})

function advance(ms: number): Promise<unknown> {
  clock.nowMs += ms
  return vi.advanceTimersByTimeAsync(ms)
}

describe('the meter', () => {
  test('knows no rate from one report, and a steady one exactly', () => {
    const meter = new ProgressMeter(clock)
    expect(meter.measure({ phase: 'copy', bytesDone: 0, bytesTotal: 10_000 }).bytesPerSecond).toBeUndefined()
    clock.nowMs += 2000
    expect(meter.measure({ phase: 'copy', bytesDone: 2000, bytesTotal: 10_000 })).toMatchObject({
      bytesPerSecond: 1000,
      etaSeconds: 8,
    })
  })

  test('begins anew with each phase', () => {
    const meter = new ProgressMeter(clock)
    meter.measure({ phase: 'copy', bytesDone: 0 })
    clock.nowMs += 1000
    meter.measure({ phase: 'copy', bytesDone: 5000 })
    clock.nowMs += 1000
    expect(meter.measure({ phase: 'wal', bytesDone: 10 }).bytesPerSecond).toBeUndefined()
  })

  test('gives no estimate past an estimate of the total', () => {
    const meter = new ProgressMeter(clock)
    meter.measure({ phase: 'copy', bytesDone: 0, bytesTotal: 10 })
    clock.nowMs += 1000
    expect(meter.measure({ phase: 'copy', bytesDone: 20, bytesTotal: 10 }).etaSeconds).toBeUndefined()
  })
})

describe('the throttle', () => {
  test('sends the first at once, then the latest twice a second', async () => {
    const sent: OperationProgress[] = []
    const reporter = throttleProgress(clock, async (progress) => void sent.push(progress))
    for (let bytesDone = 1; bytesDone <= 90; bytesDone += 1) {
      reporter.report({ phase: 'copy', bytesDone })
      await advance(10)
    }
    expect(sent.map(({ bytesDone }) => bytesDone)).toEqual([1, 50])
    reporter.finish()
    expect(sent.at(-1)?.bytesDone).toBe(90)
  })

  test('holds one write while Redis is away, and survives its failure', async () => {
    const writes: ((error: Error) => void)[] = []
    const reporter = throttleProgress(clock, () => new Promise((_resolve, reject) => void writes.push(reject)))
    reporter.report({ phase: 'copy', bytesDone: 1 })
    await advance(10_000)
    reporter.report({ phase: 'copy', bytesDone: 2 })
    expect(writes).toHaveLength(1)
    writes[0]?.(new Error('gone'))
    await advance(1000)
    expect(writes).toHaveLength(2)
    writes[1]?.(new Error('gone'))
    await advance(0)
  })

  test('sends nothing after discard', async () => {
    const sent: OperationProgress[] = []
    const reporter = throttleProgress(clock, async (progress) => void sent.push(progress))
    reporter.report({ phase: 'copy', bytesDone: 1 })
    reporter.report({ phase: 'copy', bytesDone: 2 })
    reporter.discard()
    await advance(5000)
    expect(sent).toHaveLength(1)
  })
})
