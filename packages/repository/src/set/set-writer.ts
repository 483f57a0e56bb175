/**
 * One write, every repository of the set.
 *
 * A required repository that fails fails the write; one that is not required is dropped for the rest of the run, with its
 * reason kept, and gets a copy later. The bytes are the same everywhere.
 */
import { type Logger, problemOf, type Problem } from '@tidemark/kernel'
import { RequiredRepositoryError } from '../errors.ts'
import { isToBeReadBack, readBack } from './read-back.ts'
import type { Repository } from './repository.ts'

export class SetWriter {
  readonly #repositories: readonly Repository[]
  readonly #dropped = new Map<string, Problem>()
  readonly #logger: Logger

  constructor(repositories: readonly Repository[], logger: Logger) {
    this.#repositories = repositories
    this.#logger = logger
  }

  /** Those still taking part. */
  get active(): Repository[] {
    return this.#repositories.filter(({ name }) => !this.#dropped.has(name))
  }

  get dropped(): ReadonlyMap<string, Problem> {
    return this.#dropped
  }

  /**
   * Runs `action` on every repository that still takes part, at once.
   *
   * @throws {RequiredRepositoryError} after all have ended, so that no action is left running.
   */
  async each(action: (repository: Repository) => Promise<void>, signal: AbortSignal): Promise<void> {
    const { active } = this
    const outcomes = await Promise.allSettled(active.map((repository) => action(repository)))
    for (const [i, outcome] of outcomes.entries()) {
      const repository = active[i]
      if (outcome.status === 'fulfilled' || repository === undefined) continue
      const reason: unknown = outcome.reason
      if (signal.aborted) throw reason
      if (repository.required) throw new RequiredRepositoryError(repository.name, reason)
      if (this.#dropped.has(repository.name)) continue
      const problem = problemOf(reason)
      this.#dropped.set(repository.name, problem)
      this.#logger.warn(
        { repository: repository.name, code: problem.code, reason: problem.message },
        'repository dropped from this run',
      )
    }
    if (this.active.length === 0)
      throw new RequiredRepositoryError(active[0]?.name ?? '', outcomes.find((o) => o.status === 'rejected')?.reason)
  }

  /** Stores an object everywhere and proves that it is there: by the store's own check at ingest, or by reading it back. */
  put(name: string, bytes: Uint8Array, sha256: string, signal: AbortSignal): Promise<void> {
    return this.each(async (repository) => {
      await repository.store.put(name, bytes, { signal, sha256 })
      if (isToBeReadBack(repository)) await readBack(repository, name, bytes.length, sha256, signal)
    }, signal)
  }
}
