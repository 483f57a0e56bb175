import { abortError, type Clock } from '@tidemark/kernel'

interface Sleeper {
  readonly untilMs: number
  readonly wake: () => void
}

/** A clock that stands still until a test moves it. Sleepers wake in the order of their time. */
export class ManualClock implements Clock {
  #nowMs: number
  #monotonicMs = 0
  readonly #sleepers = new Set<Sleeper>()

  constructor(start = new Date('2026-01-01T00:00:00Z')) {
    this.#nowMs = start.getTime()
  }

  now(): Date {
    return new Date(this.#nowMs)
  }

  monotonicMs(): number {
    return this.#monotonicMs
  }

  sleep(ms: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(abortError(signal, 'waiting'))
      const onAbort = (): void => {
        this.#sleepers.delete(sleeper)
        reject(abortError(signal, 'waiting'))
      }
      const sleeper = {
        untilMs: this.#monotonicMs + ms,
        wake: () => {
          signal.removeEventListener('abort', onAbort)
          this.#sleepers.delete(sleeper)
          resolve()
        },
      }
      this.#sleepers.add(sleeper)
      signal.addEventListener('abort', onAbort, { once: true })
    })
  }

  /** How long each current sleeper still has, shortest first. */
  get sleepingMs(): number[] {
    return [...this.#sleepers].map((sleeper) => sleeper.untilMs - this.#monotonicMs).sort((a, b) => a - b)
  }

  /** Lets time pass: both clocks move, sleepers whose time has come wake. */
  advance(ms: number): void {
    this.#nowMs += ms
    this.#monotonicMs += ms
    const due = [...this.#sleepers].filter((sleeper) => sleeper.untilMs <= this.#monotonicMs)
    for (const sleeper of due.sort((a, b) => a.untilMs - b.untilMs)) sleeper.wake()
  }

  /** Only the wall clock jumps, as when somebody sets it. May be negative. */
  shift(ms: number): void {
    this.#nowMs += ms
  }
}
