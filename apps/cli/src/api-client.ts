/** The control API as the CLI uses it. Errors that the API reports come back as what they are. */
import { type Operation, acceptedSchema, isTerminal, operationSchema } from '@tidemark/contracts'
import {
  OperationalError,
  type Problem,
  RelayedError,
  type ReportProgress,
  abortError,
  systemClock,
} from '@tidemark/kernel'

const POLL_MS = 400
const REQUEST_MS = 10_000
/** An API or a Redis that restarts is waited for this long. */
const PATIENCE_MS = 60_000

class ApiUnreachableError extends OperationalError {
  override readonly code = 'API_UNREACHABLE'
  override readonly retry = 'backoff'
  constructor(url: string, cause: unknown) {
    super(`the control API at ${url} does not answer`, {
      hint: 'start it, check api.host and api.port in tidemark.yaml, or do the work in this process with --local',
      facts: { url },
      cause,
    })
  }
}

/** Ctrl-C ends the looking on, not the operation. */
class FollowingStoppedError extends OperationalError {
  override readonly code = 'ABORTED'
  override readonly retry = 'backoff'
  constructor(location: string) {
    super('stopped following the operation, which goes on', {
      hint: `see how it goes: curl ${location}`,
      facts: { location },
    })
  }
}

export class ApiClient {
  readonly #base: string
  readonly #signal: AbortSignal

  constructor(api: { host: string; port: number }, signal: AbortSignal) {
    this.#base = `http://${api.host.includes(':') ? `[${api.host}]` : api.host}:${api.port}`
    this.#signal = signal
  }

  /** @returns the operation's id. @throws {ApiUnreachableError} @throws {RelayedError} as the API said it. */
  async start(path: string, body: object): Promise<string> {
    const answer = await this.#request(path, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    })
    return acceptedSchema.parse(answer).operationId
  }

  /** Follows an operation to its end; a restart of the API in between is waited out. @throws {RelayedError} how it failed. */
  async follow(operationId: string, report: ReportProgress): Promise<Operation> {
    try {
      return await this.#follow(operationId, report)
    } catch (error) {
      if (!this.#signal.aborted) throw error
      throw new FollowingStoppedError(`${this.#base}/v1/operations/${operationId}`)
    }
  }

  async #follow(operationId: string, report: ReportProgress): Promise<Operation> {
    let answeredMs = systemClock.monotonicMs()
    for (;;) {
      const answer = await this.#request(`/v1/operations/${operationId}`, {}).catch((error: unknown) => {
        const passes = error instanceof OperationalError && error.retry === 'backoff' && !this.#signal.aborted
        if (passes && systemClock.monotonicMs() - answeredMs < PATIENCE_MS) return undefined
        throw error
      })
      if (answer === undefined) {
        await systemClock.sleep(POLL_MS, this.#signal)
        continue
      }
      answeredMs = systemClock.monotonicMs()
      const operation = operationSchema.parse(answer)
      if (operation.progress !== undefined) {
        const { phase, bytesDone, bytesTotal, bytesStored, files } = operation.progress
        report({
          phase,
          bytesDone,
          ...(bytesTotal === undefined ? {} : { bytesTotal }),
          ...(bytesStored === undefined ? {} : { bytesStored }),
          ...(files === undefined ? {} : { files }),
        })
      }
      if (isTerminal(operation.state)) {
        if (operation.state !== 'succeeded') throw new RelayedError(failureOf(operation))
        return operation
      }
      await systemClock.sleep(POLL_MS, this.#signal)
    }
  }

  async #request(path: string, init: RequestInit): Promise<unknown> {
    let response: Response
    try {
      response = await fetch(this.#base + path, {
        ...init,
        signal: AbortSignal.any([this.#signal, AbortSignal.timeout(REQUEST_MS)]),
      })
    } catch (error) {
      if (this.#signal.aborted) throw abortError(this.#signal, 'following the operation')
      throw new ApiUnreachableError(this.#base, error)
    }
    const body: unknown = await response.json().catch(() => undefined)
    if (response.ok) return body
    throw new RelayedError(problemOfResponse(response, body))
  }
}

function failureOf(operation: Operation): Problem {
  const { error, id, state } = operation
  if (error !== undefined)
    return { code: error.code, message: error.message, hint: error.hint, retry: error.retry, facts: error.facts }
  return {
    code: 'OPERATION_FAILED',
    message: `operation ${id} ended as ${state}`,
    hint: "see the worker's log",
    retry: 'never',
    facts: { id },
  }
}

function problemOfResponse(response: Response, body: unknown): Problem {
  const { code, title, detail, hint, errors } = (body ?? {}) as Record<string, unknown>
  const places = Array.isArray(errors) ? errors.map(placeOf) : []
  const advice = typeof hint === 'string' ? hint : "see the API's log"
  return {
    code: typeof code === 'string' ? code : `HTTP_${response.status}`,
    message:
      typeof detail === 'string' ? detail : typeof title === 'string' ? title : `the API answered ${response.status}`,
    hint: [advice, ...places].join('\n'),
    retry: response.status >= 500 ? 'backoff' : 'after-operator',
    facts: {},
  }
}

/** One of RFC 9457's `errors`: which part of the request, and what is wrong with it. */
function placeOf(error: unknown): string {
  const { pointer, detail } = (error ?? {}) as Record<string, unknown>
  return `${String(pointer)}: ${String(detail)}`
}
