/**
 * Turns totals into a rate and an estimate, and lets at most two reports a second through.
 *
 * Progress is a courtesy: a report that cannot be written is dropped, never a reason to fail.
 */
import type { OperationProgress } from '@tidemark/contracts'
import type { Clock, Progress } from '@tidemark/kernel'

const MIN_INTERVAL_MS = 500
/** Weight of the past after one second: about the last eight seconds count. */
const SMOOTHING_PER_SECOND = 0.88

export class ProgressMeter {
  readonly #clock: Clock
  #phase: string | undefined
  #lastBytes = 0
  #lastMs = 0
  #rate: number | undefined

  constructor(clock: Clock) {
    this.#clock = clock
  }

  measure(progress: Progress): OperationProgress {
    const nowMs = this.#clock.monotonicMs()
    const { phase, bytesDone, bytesTotal } = progress
    if (phase !== this.#phase || bytesDone < this.#lastBytes) {
      this.#phase = phase
      this.#rate = undefined
    } else if (nowMs > this.#lastMs) {
      const seconds = (nowMs - this.#lastMs) / 1000
      const current = (bytesDone - this.#lastBytes) / seconds
      const weight = SMOOTHING_PER_SECOND ** seconds
      this.#rate = this.#rate === undefined ? current : this.#rate * weight + current * (1 - weight)
    }
    this.#lastBytes = bytesDone
    this.#lastMs = nowMs
    const rate = this.#rate
    // An estimate of the total may be overtaken on a growing cluster: no estimate is better than a negative one.
    const eta =
      rate && bytesTotal !== undefined && bytesTotal >= bytesDone ? (bytesTotal - bytesDone) / rate : undefined
    return {
      ...progress,
      ...(rate === undefined ? {} : { bytesPerSecond: Math.round(rate) }),
      ...(eta === undefined || !Number.isFinite(eta) ? {} : { etaSeconds: Math.ceil(eta) }),
      at: this.#clock.now().toISOString(),
    }
  }
}

export interface ProgressReporter {
  report(progress: Progress): void
  /** Sends what is still held back, and nothing afterwards. */
  finish(): void
  /** Sends nothing from now on: another worker may be reporting already. */
  discard(): void
}

/** @param send must not throw synchronously; a rejection is ignored. */
export function throttleProgress(clock: Clock, send: (progress: OperationProgress) => Promise<void>): ProgressReporter {
  const meter = new ProgressMeter(clock)
  let held: Progress | undefined
  let timer: NodeJS.Timeout | undefined
  let lastSentMs = Number.NEGATIVE_INFINITY
  let inFlight = false
  let finished = false

  function flush(): void {
    clearTimeout(timer)
    timer = undefined
    if (held === undefined) return
    const progress = meter.measure(held)
    held = undefined
    lastSentMs = clock.monotonicMs()
    inFlight = true
    send(progress)
      .catch(() => {})
      .finally(() => {
        inFlight = false
        if (held !== undefined && !finished) schedule()
      })
  }
  function schedule(): void {
    const waitMs = lastSentMs + MIN_INTERVAL_MS - clock.monotonicMs()
    if (waitMs <= 0) flush()
    else timer ??= setTimeout(flush, waitMs)
  }
  return {
    report(progress) {
      if (finished) return
      held = progress
      // While Redis is away one write waits; newer reports replace each other here meanwhile.
      if (!inFlight) schedule()
    },
    finish() {
      if (finished) return
      finished = true
      clearTimeout(timer)
      if (!inFlight) flush()
    },
    discard() {
      finished = true
      held = undefined
      clearTimeout(timer)
    },
  }
}
