/**
 * Repeats what failed for a passing reason, without making an overload worse.
 *
 * One `Retry` belongs to one store and is shared by all its callers: when the store asks for less load,
 * all of them hold back, and their retries come out of one budget, so that an outage costs each caller
 * one attempt instead of many once the budget is spent. Successes refill it.
 * Delays are exponential with full jitter; a `Retry-After` of the store overrules them.
 * Only StoreUnavailableError is repeated; everything else passes at once.
 */
import { throwIfAborted, type Clock, type Logger } from '@tidemark/kernel'
import { StoreUnavailableError } from './errors.ts'

export interface RetryPolicy {
  /** Attempts of one call, the first included. */
  readonly attempts: number
  readonly baseMs: number
  readonly capMs: number
  /** No attempt starts later than this after the call's beginning. */
  readonly callMs: number
  /** Retries that all callers of the store have in common. */
  readonly budget: number
}

export const DEFAULT_RETRY: RetryPolicy = { attempts: 8, baseMs: 200, capMs: 20_000, callMs: 300_000, budget: 200 }

export interface RetryOptions {
  readonly clock: Clock
  readonly logger: Logger
  readonly policy: RetryPolicy
  /** In [0, 1); handed in by tests. */
  readonly random?: () => number
}

export class Retry {
  readonly #clock: Clock
  readonly #logger: Logger
  readonly #policy: RetryPolicy
  readonly #random: () => number
  #budget: number
  /** Nobody starts an attempt before this moment (monotonic). */
  #quietUntilMs = 0
  /** How often in a row the store has asked for less load. */
  #slowDowns = 0

  constructor({ clock, logger, policy, random = Math.random }: RetryOptions) {
    this.#clock = clock
    this.#logger = logger
    this.#policy = policy
    this.#random = random
    this.#budget = policy.budget
  }

  /** Resolves to the first success of `attempt`; rejects with its last error. */
  async run<T>(what: string, signal: AbortSignal, attempt: (number: number) => Promise<T>): Promise<T> {
    const begunMs = this.#clock.monotonicMs()
    for (let number = 1; ; number += 1) {
      await this.#holdBack(signal)
      throwIfAborted(signal, what)
      try {
        const result = await attempt(number)
        this.#slowDowns = 0
        this.#budget = Math.min(this.#policy.budget, this.#budget + 1)
        return result
      } catch (error) {
        if (!(error instanceof StoreUnavailableError)) throw error
        const delayMs = this.#delayAfter(error, number)
        const spentMs = this.#clock.monotonicMs() - begunMs
        if (number >= this.#policy.attempts || this.#budget < 1 || spentMs + delayMs > this.#policy.callMs) throw error
        this.#budget -= 1
        this.#logger.warn(
          { what, attempt: number, delayMs: Math.round(delayMs), throttled: error.throttled, facts: error.facts },
          'the store did not answer as it should; trying again',
        )
        if (!error.throttled) await this.#clock.sleep(delayMs, signal)
      }
    }
  }

  #delayAfter(error: StoreUnavailableError, attempt: number): number {
    const { baseMs, capMs } = this.#policy
    if (!error.throttled) return error.retryAfterMs ?? this.#random() * Math.min(capMs, baseMs * 2 ** attempt)
    this.#slowDowns = Math.min(this.#slowDowns + 1, 10)
    const delayMs = error.retryAfterMs ?? (0.5 + this.#random() / 2) * Math.min(capMs, baseMs * 2 ** this.#slowDowns)
    this.#quietUntilMs = Math.max(this.#quietUntilMs, this.#clock.monotonicMs() + delayMs)
    return delayMs
  }

  /** Waits while the store is to be left alone; a little longer at random, so that callers do not return as one. */
  async #holdBack(signal: AbortSignal): Promise<void> {
    for (;;) {
      const waitMs = this.#quietUntilMs - this.#clock.monotonicMs()
      if (waitMs <= 0) return
      await this.#clock.sleep(waitMs + this.#random() * this.#policy.baseMs, signal)
    }
  }
}
