import { abortError, throwIfAborted, type Clock } from '@tidemark/kernel'
import { StoreUnavailableError } from './errors.ts'

export interface Deadline {
  readonly clock: Clock
  readonly ms: number
  readonly signal: AbortSignal
  /** For the error: "reading records/x". */
  readonly what: string
  readonly url: string
}

/**
 * Runs `run` with a signal that fires when the caller's does or when the time is up.
 *
 * At the deadline it rejects at once, even if `run` hangs where no signal reaches it (a dead NFS
 * mount); on the caller's abort it waits for `run` to clean up.
 *
 * @throws {StoreUnavailableError} the time is up. @throws {AbortedError} the caller withdrew.
 */
export async function withDeadline<T>(deadline: Deadline, run: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const { clock, ms, signal, what, url } = deadline
  throwIfAborted(signal, what)
  const cut = new AbortController()
  const settled = new AbortController()
  const onAbort = (): void => cut.abort(abortError(signal, what))
  signal.addEventListener('abort', onAbort, { once: true })
  const tooLate = clock.sleep(ms, settled.signal).then(() => {
    const error = new StoreUnavailableError(what, url, { facts: { deadlineMs: ms } })
    cut.abort(error)
    throw error
  })
  tooLate.catch(() => {}) // the timer is ended by `settled` in the normal case
  try {
    return await Promise.race([run(cut.signal), tooLate])
  } catch (error) {
    throw cut.signal.aborted ? cut.signal.reason : error
  } finally {
    settled.abort()
    signal.removeEventListener('abort', onAbort)
  }
}
