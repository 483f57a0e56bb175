import type { OperationKind } from '@tidemark/contracts'

/** How often and when an operation is tried again; the producer writes it into the job. */
export interface RetryPolicy {
  /** Tries that may fail in a way that passes, the first one included. */
  readonly attempts: number
  /** Pause after the first failed try; doubles each time, half of it random. */
  readonly backoffMs: number
  /** How often a job may be taken up again after its worker died. */
  readonly maxStalledCount: number
  /** Starts for any reason (tries, dead workers, hand-backs): the last line against endless repeats. */
  readonly maxStartedAttempts: number
  /**
   * For what is owed, however long it takes: pauses grow no further than to 64 times the first, and what an operator has to set right first is
   * waited for like an outage.
   */
  readonly patient?: boolean
}

/** `owed`: of maintenance that is asked for with `owed`. */
export type RetryPolicies = Readonly<Record<OperationKind | 'owed', RetryPolicy>>

const REPEATABLE: RetryPolicy = { attempts: 5, backoffMs: 10_000, maxStalledCount: 3, maxStartedAttempts: 20 }

/** Pauses of 10 s to 11 min, half of each random: tried for 35 to 70 hours. */
const OWED: RetryPolicy = { ...REPEATABLE, attempts: 400, maxStartedAttempts: 500, patient: true }

/** All but a restore may be repeated at will. A restore writes a directory: resuming it is asked for, never automatic. */
export const RETRY_POLICIES: RetryPolicies = {
  backup: REPEATABLE,
  verify: REPEATABLE,
  // Its workers carry out owed copies, too.
  maintenance: { ...REPEATABLE, maxStartedAttempts: OWED.maxStartedAttempts },
  owed: OWED,
  restore: { attempts: 1, backoffMs: 0, maxStalledCount: 0, maxStartedAttempts: 1 },
}

/** BullMQ's name for the pauses of a patient job; kept in the job. */
export const PATIENT_BACKOFF = 'patient'
const MOST_DOUBLINGS = 6
const JITTER = 0.5

/** Milliseconds to wait after so many tries. @param random in [0, 1). */
export function patientDelayMs(tries: number, firstMs: number, random: number): number {
  const longestMs = firstMs * 2 ** Math.min(Math.max(tries - 1, 0), MOST_DOUBLINGS)
  return Math.round(longestMs * (1 - JITTER * random))
}
