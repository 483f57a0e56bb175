import { OperationalError } from '@tidemark/kernel'
import type { Problem } from '@tidemark/contracts'

/** Redis does not answer, or not in time. The HTTP API answers 503. */
export class QueueUnavailableError extends OperationalError {
  override readonly code = 'QUEUE_UNAVAILABLE'
  override readonly retry = 'backoff'
  constructor(what: string, cause?: unknown) {
    super(`${what}: the queue does not answer`, {
      hint: 'check that Redis runs and is reachable at redis.url; then send the request again, with the same Idempotency-Key',
      cause,
    })
  }
}

/** Redis answers, but would lose or evict jobs. A readiness failure. */
export class RedisUnsuitableError extends OperationalError {
  override readonly code = 'REDIS_UNSUITABLE'
  override readonly retry = 'after-operator'
  constructor(found: readonly string[], remedies: readonly string[], facts: Readonly<Record<string, unknown>>) {
    super(`this Redis cannot hold the queue: ${found.join('; ')}`, { hint: remedies.join('; '), facts })
  }
}

/** Another operation of the same kind is under way for this cluster, with other options. HTTP 409. */
export class OperationConflictError extends OperationalError {
  override readonly code = 'OPERATION_CONFLICT'
  override readonly retry = 'after-operator'
  readonly operationId: string
  constructor(operationId: string, cluster: string) {
    super(`cluster ${cluster} already has an operation under way with other options`, {
      hint: `wait for ${operationId} to finish, or ask for exactly the same options to join it`,
      facts: { operationId, cluster },
    })
    this.operationId = operationId
  }
}

/** One Idempotency-Key, two different requests. HTTP 422. */
export class IdempotencyKeyReusedError extends OperationalError {
  override readonly code = 'IDEMPOTENCY_KEY_REUSED'
  override readonly retry = 'never'
  constructor(operationId: string) {
    super('this Idempotency-Key was used for another request', {
      hint: 'use a fresh key for each new request, and the same key only to repeat the same one',
      facts: { operationId },
    })
  }
}

/** What a worker took from the queue is no job of this release. */
export class JobMalformedError extends OperationalError {
  override readonly code = 'JOB_MALFORMED'
  override readonly retry = 'never'
  constructor(queue: string, problems: readonly string[]) {
    super(`a job on queue ${queue} does not have the accepted form: ${problems.join('; ')}`, {
      hint: 'run the same release of API and workers, then ask for the operation again',
      facts: { queue, problems },
    })
  }
}

/** The worker could not renew its claim, so another one may be at work on the same job by now. */
export class LockLostError extends OperationalError {
  override readonly code = 'LOCK_LOST'
  override readonly retry = 'backoff'
  constructor(operationId: string) {
    super('this worker lost its claim on the operation and stopped', {
      hint: 'the operation is taken up again by itself; look for a starved event loop or a Redis outage if it recurs',
      facts: { operationId },
    })
  }
}

/** The abort reason of jobs still active at the drain deadline. They are handed back, not failed. */
export class WorkerStoppingError extends OperationalError {
  override readonly code = 'WORKER_STOPPING'
  override readonly retry = 'backoff'
  constructor() {
    super('the worker is shutting down', { hint: 'the operation goes on at another worker' })
  }
}

/** A restore whose worker shut down: it is never taken up again by itself. */
export const INTERRUPTED: Problem = {
  code: 'OPERATION_INTERRUPTED',
  message: 'the worker shut down before the operation finished',
  hint: 'clear the target directory and ask for the operation again; this kind is never resumed by itself',
  retry: 'after-operator',
  facts: {},
}
