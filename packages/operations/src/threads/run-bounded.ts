import { throwIfAborted } from '@tidemark/kernel'

/**
 * Runs `task` over `items`, at most `atOnce` at a time, and waits for all of them, also when one fails: nothing is left running.
 *
 * The first failure stops new tasks, aborts the signal that running ones were given, and is thrown.
 */
export async function runBounded<T>(
  items: Iterator<T>,
  atOnce: number,
  signal: AbortSignal,
  task: (item: T, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const stop = new AbortController()
  const either = AbortSignal.any([signal, stop.signal])
  let failure: { error: unknown } | undefined
  const runner = async (): Promise<void> => {
    for (;;) {
      if (failure !== undefined || either.aborted) return
      try {
        const next = items.next()
        if (next.done === true) return
        await task(next.value, either)
      } catch (error) {
        failure ??= { error }
        stop.abort()
      }
    }
  }
  await Promise.all(Array.from({ length: atOnce }, runner))
  throwIfAborted(signal, 'the work')
  if (failure !== undefined) throw failure.error
}
