import { abortError } from './errors.ts'

/** Time is handed in, so that tests can shift it and wait without sleeping. */
export interface Clock {
  /** Wall-clock time of this host; never used to decide what may be deleted. */
  now(): Date
  /** Milliseconds from an arbitrary origin; never goes back. For durations and rates. */
  monotonicMs(): number
  /** Resolves after `ms`. @throws {OperationalError} as soon as `signal` fires. */
  sleep(ms: number, signal: AbortSignal): Promise<void>
}

export const systemClock: Clock = {
  now: () => new Date(),
  monotonicMs: () => performance.now(),
  sleep: (ms, signal) =>
    new Promise((resolve, reject) => {
      if (signal.aborted) return reject(abortError(signal, 'waiting'))
      const onAbort = (): void => {
        clearTimeout(timer)
        reject(abortError(signal, 'waiting'))
      }
      const timer = setTimeout(() => {
        signal.removeEventListener('abort', onAbort)
        resolve()
      }, ms)
      signal.addEventListener('abort', onAbort, { once: true })
    }),
}
