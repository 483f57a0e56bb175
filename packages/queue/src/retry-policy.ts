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
}

const REPEATABLE: RetryPolicy = { attempts: 5, backoffMs: 10_000, maxStalledCount: 3, maxStartedAttempts: 20 }

/** All but a restore may be repeated at will. A restore writes a directory: resuming it is asked for, never automatic. */
export const RETRY_POLICIES: Readonly<Record<OperationKind, RetryPolicy>> = {
  backup: REPEATABLE,
  verify: REPEATABLE,
  maintenance: REPEATABLE,
  restore: { attempts: 1, backoffMs: 0, maxStalledCount: 0, maxStartedAttempts: 1 },
}
