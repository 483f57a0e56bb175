/**
 * The error family of Tidemark.
 *
 * An OperationalError is something an operator can act on: it says what happened (message), what
 * to check (hint), where (facts) and whether trying again can help (retry). Everything that is not
 * an OperationalError is a bug: it is escalated, never retried blindly. HTTP status, exit codes and
 * BullMQ's UnrecoverableError are decided at the edges, from `code` and `retry` alone.
 */
export type Retry =
  /** The same call will fail again. */
  | 'never'
  /** The cause passes by itself: repeat with back-off. */
  | 'backoff'
  /** Somebody has to change something first. */
  | 'after-operator'

export interface ErrorDetail {
  readonly hint: string
  readonly facts?: Readonly<Record<string, unknown>>
  readonly cause?: unknown
}

/** What crosses a process boundary (queue, HTTP, `--json`) in place of the error object. */
export interface Problem {
  readonly code: string
  readonly message: string
  readonly hint: string
  readonly retry: Retry
  readonly facts: Readonly<Record<string, unknown>>
}

export abstract class OperationalError extends Error {
  abstract readonly code: string
  abstract readonly retry: Retry
  readonly hint: string
  readonly facts: Readonly<Record<string, unknown>>

  constructor(message: string, detail: ErrorDetail) {
    super(message, detail.cause === undefined ? undefined : { cause: detail.cause })
    this.name = new.target.name
    this.hint = detail.hint
    this.facts = detail.facts ?? {}
  }
}

/** The caller withdrew: Ctrl-C, SIGTERM, a cancelled job, a closed request. */
export class AbortedError extends OperationalError {
  override readonly code = 'ABORTED'
  override readonly retry = 'backoff'
  constructor(what: string, cause?: unknown) {
    super(`${what} was stopped before it finished`, { hint: 'nothing was committed; run it again when ready', cause })
  }
}

/** Any thrown value as a Problem. Unknown errors become INTERNAL, with their message kept. */
export function problemOf(error: unknown): Problem {
  if (error instanceof OperationalError) {
    const { code, message, hint, retry, facts } = error
    return { code, message, hint, retry, facts: plainFacts(facts) }
  }
  const message = error instanceof Error ? error.message : String(error)
  return {
    code: 'INTERNAL',
    message,
    hint: 'this is a bug in Tidemark: keep the log of this run and report it',
    retry: 'never',
    facts: {},
  }
}

const SOONEST = { backoff: 0, 'after-operator': 1, never: 2 } as const

/** Of several failures of one thing, the first of those that pass soonest: whoever tries again must not be told that nothing helps. */
export function soonestToPass(errors: readonly unknown[]): unknown {
  return errors.toSorted((a, b) => SOONEST[problemOf(a).retry] - SOONEST[problemOf(b).retry])[0]
}

/** A Problem that came from another thread, process or host, as an error again: code, hint and retry are its own. */
export class RelayedError extends OperationalError {
  override readonly code: string
  override readonly retry: Retry
  constructor(problem: Problem) {
    super(problem.message, { hint: problem.hint, facts: problem.facts })
    this.code = problem.code
    this.retry = problem.retry
  }
}

/** Bigints (LSNs, sizes) do not survive JSON: they cross as decimal strings. */
function plainFacts(facts: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return JSON.parse(
    JSON.stringify(facts, (_key, value: unknown) => (typeof value === 'bigint' ? value.toString() : value)),
  ) as Record<string, unknown>
}

/**
 * Throws if `signal` has fired.
 *
 * @throws {AbortedError} unless the abort reason is itself an OperationalError (a deadline, a lost
 *   lock), which is then thrown as it is.
 */
export function throwIfAborted(signal: AbortSignal, what: string): void {
  if (!signal.aborted) return
  throw abortError(signal, what)
}

/** The error that an aborted `signal` stands for. */
export function abortError(signal: AbortSignal, what: string): OperationalError {
  const reason: unknown = signal.reason
  return reason instanceof OperationalError ? reason : new AbortedError(what, reason)
}
