/**
 * What came damaged is read once more before it counts as damaged.
 *
 * A bit may flip on the wire or in a memory on the way here, where neither TCP's checksum nor a store's own sees it. What lies damaged in a
 * repository comes damaged again.
 */
import { type Logger, OperationalError } from '@tidemark/kernel'
import type { Repository } from '@tidemark/repository'
import { ObjectNotFoundError } from '@tidemark/storage'

export class Rereads {
  readonly #logger: Logger
  /** Objects, or parts of them, that were read a second time. */
  count = 0

  constructor(logger: Logger) {
    this.#logger = logger
  }

  /** @throws what `read` throws: the second time, where that was damage at first. */
  async once<T>(source: Repository, signal: AbortSignal, read: () => Promise<T>): Promise<T> {
    try {
      return await read()
    } catch (error) {
      if (signal.aborted || !this.#isWorthIt(error, source)) throw error
      return await read()
    }
  }

  /** The same for what comes in pieces: from the beginning again, without what was given already. */
  async *onceFromStart<T>(source: Repository, signal: AbortSignal, read: () => AsyncIterable<T>): AsyncGenerator<T> {
    let given = 0
    for (let attempt = 1; ; attempt += 1) {
      let at = 0
      try {
        for await (const piece of read()) {
          at += 1
          if (at <= given) continue
          given = at
          yield piece
        }
        return
      } catch (error) {
        if (attempt > 1 || signal.aborted || !this.#isWorthIt(error, source)) throw error
      }
    }
  }

  #isWorthIt(error: unknown, source: Repository): boolean {
    if (!(error instanceof OperationalError) || !isDamage(error)) return false
    this.count += 1
    this.#logger.warn(
      { repository: source.name, code: error.code, reason: error.message },
      'object came damaged and is read again',
    )
    return true
  }
}

function isDamage({ code, cause }: OperationalError): boolean {
  if (cause instanceof ObjectNotFoundError) return false
  // The id of the key stands in a header that only the key itself can vouch for; the plan has seen that the real ones are there.
  if (code === 'KEY_UNKNOWN') return true
  return code === 'BACKUP_INCOMPLETE' || code === 'DOCUMENT_DAMAGED' || code.startsWith('SEAL_')
}
