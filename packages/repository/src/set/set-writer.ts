/**
 * One write, every repository of the set.
 *
 * A required repository that fails fails the write; one that is not required, and fails or holds the run up for too long, is dropped for the rest of the run, with its
 * reason kept, and gets a copy later. The bytes are the same everywhere.
 */
import { type Clock, type Logger, problemOf, type Problem } from '@tidemark/kernel'
import { RepositoryTooSlowError, RequiredRepositoryError } from '../errors.ts'
import { Lag } from './lag.ts'
import { putProven } from './read-back.ts'
import type { Repository } from './repository.ts'

interface Begun {
  readonly repository: Repository
  readonly late: AbortController
  readonly done: Promise<void>
}

/** Resolves once all required ones have ended or, with no required one, the first has succeeded: false if none did. */
async function whenEnough(begun: readonly Begun[]): Promise<boolean> {
  const required = begun.filter(({ repository }) => repository.required)
  const outcomes = await Promise.allSettled(
    required.length > 0 ? required.map(({ done }) => done) : [Promise.any(begun.map(({ done }) => done))],
  )
  return required.length > 0 || outcomes.some(({ status }) => status === 'fulfilled')
}

export class SetWriter {
  readonly #repositories: readonly Repository[]
  readonly #dropped = new Map<string, Problem>()
  readonly #logger: Logger
  readonly #lags: ReadonlyMap<string, Lag>

  constructor(repositories: readonly Repository[], logger: Logger, clock: Clock) {
    this.#repositories = repositories
    this.#logger = logger
    this.#lags = new Map(repositories.map(({ name }) => [name, new Lag(clock)]))
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
   * @param action is given a signal of its own: it fires, too, when the run has waited long enough for a repository that is not required.
   * @throws {RequiredRepositoryError} after all have ended, so that no action is left running.
   */
  async each(
    action: (repository: Repository, signal: AbortSignal) => Promise<void>,
    signal: AbortSignal,
  ): Promise<void> {
    const { active } = this
    const begun = active.map((repository) => {
      const late = new AbortController()
      const either = active.length > 1 ? AbortSignal.any([signal, late.signal]) : signal
      return { repository, late, done: action(repository, either) }
    })
    // A run of one has nobody to wait for.
    if (begun.length > 1) void this.#dropTheLate(begun)
    const outcomes = await Promise.allSettled(begun.map(({ done }) => done))
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

  async #dropTheLate(begun: readonly Begun[]): Promise<void> {
    if (!(await whenEnough(begun))) return
    for (const one of begun) if (!one.repository.required) void this.#dropWhenTooLate(one)
  }

  async #dropWhenTooLate({ repository, late, done }: Begun): Promise<void> {
    const lag = this.#lags.get(repository.name)
    if (lag !== undefined && (await lag.wait(done)))
      late.abort(new RepositoryTooSlowError(repository.name, lag.waitedMs))
  }

  /** Stores an object everywhere and proves that it is there. */
  put(name: string, bytes: Uint8Array, sha256: string, signal: AbortSignal): Promise<void> {
    return this.each((repository, signal) => putProven(repository, name, bytes, sha256, signal), signal)
  }
}
