/**
 * Errors across the queue: `failedReason` holds the Problem as JSON.
 *
 * BullMQ keeps only an error's message, so the message is the Problem. What BullMQ itself writes
 * (its wording for a job whose worker died) is translated when it is read.
 */
import { UnrecoverableError } from 'bullmq'
import { problemSchema } from '@tidemark/contracts'
import type { Problem } from '@tidemark/contracts'

/** BullMQ tries this job again if attempts are left. */
class RetryableJobError extends Error {
  constructor(problem: Problem, cause: unknown) {
    super(JSON.stringify(problem), { cause })
    this.name = 'RetryableJobError'
  }
}

/** @param patient what an operator has to set right is waited for, too. */
export function jobError(problem: Problem, cause: unknown, patient: boolean): Error {
  if (problem.retry === 'backoff' || (patient && problem.retry === 'after-operator'))
    return new RetryableJobError(problem, cause)
  const error = new UnrecoverableError(JSON.stringify(problem))
  error.cause = cause
  return error
}

const STALLED = 'job stalled more than allowable limit'
const STARTED = 'job started more than allowable limit'

export function problemFromFailedReason(reason: string): Problem {
  if (reason === STALLED || reason === STARTED) {
    return {
      code: reason === STALLED ? 'WORKER_LOST' : 'STARTED_TOO_OFTEN',
      message:
        reason === STALLED
          ? 'the worker died or lost its connection while it carried out the operation'
          : 'the operation was started more often than is allowed and never finished',
      hint: 'look at the log of the worker (out of memory, killed, host lost), then ask for the operation again',
      retry: 'after-operator',
      facts: {},
    }
  }
  try {
    return problemSchema.parse(JSON.parse(reason))
  } catch {
    return { code: 'INTERNAL', message: reason, hint: 'look at the log of the worker', retry: 'never', facts: {} }
  }
}
