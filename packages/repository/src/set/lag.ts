/**
 * How long a run has waited for one repository alone, and when that is enough.
 *
 * A repository that is not required may hold the others up, but not for ever: once the run has waited for it alone for more than ten minutes
 * and for more than half of its whole time, it is to be dropped.
 */
import type { Clock } from '@tidemark/kernel'

const ALWAYS_ALLOWED_MS = 10 * 60_000
const ALLOWED_SHARE = 0.5
const LOOK_EVERY_MS = 5_000

export class Lag {
  readonly #clock: Clock
  readonly #begunMs: number
  #waitedMs = 0
  /** Writes that wait for it now, and since when there has been one. */
  #waiting = 0
  #sinceMs = 0

  constructor(clock: Clock) {
    this.#clock = clock
    this.#begunMs = clock.monotonicMs()
  }

  get waitedMs(): number {
    return this.#waitedMs + (this.#waiting > 0 ? this.#clock.monotonicMs() - this.#sinceMs : 0)
  }

  get tooLong(): boolean {
    const wholeMs = this.#clock.monotonicMs() - this.#begunMs
    return this.waitedMs > ALWAYS_ALLOWED_MS && this.waitedMs > wholeMs * ALLOWED_SHARE
  }

  /** Counts the time until `done` settles. @returns true as soon as it is too long; false once it has settled. */
  async wait(done: Promise<unknown>): Promise<boolean> {
    if (this.#waiting === 0) this.#sinceMs = this.#clock.monotonicMs()
    this.#waiting += 1
    const settled = new AbortController()
    void done.then(
      () => settled.abort(),
      () => settled.abort(),
    )
    try {
      while (!this.tooLong) {
        await this.#clock.sleep(LOOK_EVERY_MS, settled.signal).catch(() => {})
        if (settled.signal.aborted) return false
      }
      return true
    } finally {
      this.#waiting -= 1
      if (this.#waiting === 0) this.#waitedMs += this.#clock.monotonicMs() - this.#sinceMs
    }
  }
}
