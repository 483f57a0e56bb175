import { setTimeout as wait } from 'node:timers/promises'

export interface UntilOptions {
  /** Default 30 s. */
  readonly timeoutMs?: number
  /** Pause between two looks; default 50 ms. */
  readonly everyMs?: number
  /** For the error message: "waited 30000 ms for <what>". */
  readonly what?: string
}

type Truthy<T> = Exclude<T, undefined | null | false | 0 | ''>

/**
 * Polls until `condition` gives something truthy, and resolves to it.
 *
 * A condition that throws counts as "not yet"; its last error becomes the `cause` of the time-out.
 */
export async function until<T>(condition: () => T | Promise<T>, options: UntilOptions = {}): Promise<Truthy<T>> {
  const { timeoutMs = 30_000, everyMs = 50, what = 'a condition' } = options
  const deadline = performance.now() + timeoutMs
  for (;;) {
    let lastError: unknown
    try {
      const value = await condition()
      if (value) return value as Truthy<T>
    } catch (error) {
      lastError = error
    }
    if (performance.now() > deadline) {
      throw new Error(`waited ${timeoutMs} ms for ${what}`, lastError === undefined ? undefined : { cause: lastError })
    }
    await wait(everyMs)
  }
}
