/**
 * Carries out the operations of one queue.
 *
 * The states of a job here, and how it leaves them:
 *   active    → completed: `process` resolved with a result of the right form
 *             → delayed: an OperationalError with retry 'backoff' (owed work: 'after-operator', too), tries left; taken up again later
 *             → failed: retry 'never' or 'after-operator', an unknown error, or no tries left
 *             → waiting: handed back at the drain deadline, or the worker died and its lock ran out
 *               (restores: failed in both cases)
 * A worker whose lock could not be renewed aborts its job, since another one may have it by now.
 * At-least-once: `process` may run twice, at once, on two hosts.
 */
import { hostname } from 'node:os'
import { WaitingError, Worker } from 'bullmq'
import type { Job } from 'bullmq'
import { queueName, resultSchemas, storedJobSchemas } from '@tidemark/contracts'
import type { JobOf, OperationKind, ResultOf } from '@tidemark/contracts'
import { OperationalError, problemOf, silentLogger, systemClock } from '@tidemark/kernel'
import type { Clock, Logger, ReportProgress } from '@tidemark/kernel'
import { INTERRUPTED, JobMalformedError, LockLostError, WorkerStoppingError } from './errors.ts'
import { jobError, problemFromFailedReason } from './failure.ts'
import { registerQueue } from './known-queues.ts'
import { throttleProgress } from './progress-meter.ts'
import type { RedisConnection } from './redis.ts'
import { PATIENT_BACKOFF, RETRY_POLICIES, patientDelayMs } from './retry-policy.ts'
import type { RetryPolicy } from './retry-policy.ts'

export interface JobContext {
  /** Fires when the lock is lost or the drain deadline has come; stop soon and throw. */
  readonly signal: AbortSignal
  /** Call as often as you like; at most two reports a second are stored. */
  readonly progress: ReportProgress
  /** How often this operation was started, this time included. */
  readonly attempt: number
  /** With operationId and cluster bound. */
  readonly logger: Logger
}

/** How one start of a job ended. Only 'succeeded' and 'failed' are final. */
export type JobOutcome = 'succeeded' | 'failed' | 'retried' | 'handed_back'

/** Met by createJobMetrics of @tidemark/observability. */
export interface JobMetricsSink {
  finished(queue: string, outcome: JobOutcome, seconds: number): void
}

export interface StartWorkerOptions<K extends OperationKind> {
  readonly kind: K
  /** Serve `<kind>.<host>` instead of the shared queue. */
  readonly host?: string
  /** Of role 'worker'; stays the caller's to dispose, after the worker. */
  readonly connection: RedisConnection
  readonly concurrency?: number
  readonly process: (job: JobOf[K], context: JobContext) => Promise<ResultOf[K]>
  /** Default: the kind's. `attempts` and `backoffMs` are the producer's and have no effect here. */
  readonly retryPolicy?: RetryPolicy
  /** A worker that stops renewing loses its jobs after this long. Default 30 s. */
  readonly lockDurationMs?: number
  /** How often to look for jobs of dead workers. Default 10 s: with the lock, taken up again within 45 s. */
  readonly stalledIntervalMs?: number
  /** Disposal waits this long for active jobs, then hands them back. Default 20 s. */
  readonly drainMs?: number
  /** … and this long for them to obey. Default 5 s. */
  readonly abandonMs?: number
  readonly logger?: Logger
  readonly metrics?: JobMetricsSink
  readonly clock?: Clock
}

export interface RunningWorker extends AsyncDisposable {
  readonly queue: string
  /** Ids of the operations being carried out now. */
  readonly active: readonly string[]
  /** False once the fetch loop has ended: a worker that lives but takes no jobs. */
  isRunning(): boolean
  /** Resolves once connected and taking jobs. */
  ready(): Promise<void>
}

export function startWorker<K extends OperationKind>(options: StartWorkerOptions<K>): RunningWorker {
  const { kind, connection, metrics, concurrency = 1, clock = systemClock } = options
  if (connection.role !== 'worker') throw new TypeError("a worker needs a connection of role 'worker'")
  const queue = queueName(kind, options.host)
  const policy = options.retryPolicy ?? RETRY_POLICIES[kind]
  const logger = (options.logger ?? silentLogger).child({ queue })
  const active = new Map<string, AbortController>()

  async function carryOut(job: Job, token: string, controller: AbortController): Promise<ResultOf[K]> {
    const operationId = job.id ?? ''
    const reporter = throttleProgress(clock, (progress) => job.updateProgress(progress))
    try {
      const work = parseJob(kind, queue, job.data)
      const jobLogger = logger.child({ operationId, cluster: work.cluster, attempt: job.attemptsStarted })
      jobLogger.info({}, 'operation started')
      const result = await options.process(work, {
        signal: controller.signal,
        progress: (progress) => reporter.report(progress),
        attempt: job.attemptsStarted,
        logger: jobLogger,
      })
      return resultSchemas[kind].parse(result) as ResultOf[K]
    } catch (error) {
      if (controller.signal.reason instanceof WorkerStoppingError && !isFinal(error)) {
        await handBack(job, token, operationId)
      }
      throw jobError(problemOf(error), error, isPatient(job))
    } finally {
      if (controller.signal.aborted) reporter.discard()
      else reporter.finish()
    }
  }

  /** Always throws: what BullMQ is to do with the job. */
  async function handBack(job: Job, token: string, operationId: string): Promise<never> {
    if (policy.maxStalledCount === 0) throw jobError(INTERRUPTED, undefined, false)
    // Not a failed try: straight back to the head of the queue, tries unchanged.
    await job.moveToWait(token)
    logger.info({ operationId }, 'operation handed back')
    metrics?.finished(queue, 'handed_back', secondsSince(job.processedOn))
    throw new WaitingError()
  }

  const worker = new Worker(
    queue,
    // Three declared parameters: BullMQ hands the signal only to a function that has them.
    async (job: Job, token: string | undefined, bullSignal: AbortSignal | undefined) => {
      const controller = new AbortController()
      const cancel = (): void => controller.abort(new LockLostError(job.id ?? ''))
      bullSignal?.addEventListener('abort', cancel, { once: true })
      active.set(job.id ?? '', controller)
      try {
        return await carryOut(job, token ?? '', controller)
      } finally {
        active.delete(job.id ?? '')
        bullSignal?.removeEventListener('abort', cancel)
      }
    },
    {
      connection: connection.client,
      prefix: connection.prefix,
      name: `${hostname()}-${process.pid}`,
      concurrency,
      lockDuration: options.lockDurationMs ?? 30_000,
      stalledInterval: options.stalledIntervalMs ?? 10_000,
      maxStalledCount: policy.maxStalledCount,
      maxStartedAttempts: policy.maxStartedAttempts,
      settings: {
        // Asked for pauses that BullMQ does not know itself: those of patient jobs.
        backoffStrategy: (tries, _type, _error, job) => patientDelayMs(tries, firstPauseMs(job), Math.random()),
      },
      // Without this, BullMQ's own counters of failed jobs stay 0.
      metrics: { maxDataPoints: 10_080 },
      runRetryDelay: 2000,
    },
  )
  worker.on('error', (error) => logger.warn({ err: error }, 'queue worker error'))
  worker.on('lockRenewalFailed', (jobIds: string[]) => {
    for (const id of jobIds) active.get(id)?.abort(new LockLostError(id))
  })
  worker.on('completed', (job) => {
    metrics?.finished(queue, 'succeeded', secondsSince(job.processedOn))
    logger.info({ operationId: job.id, durationMs: secondsSince(job.processedOn) * 1000 }, 'operation succeeded')
  })
  worker.on('failed', (job, error) => {
    // Fires at every failed try; only the last one sets finishedOn.
    const final = job?.finishedOn !== undefined
    metrics?.finished(queue, final ? 'failed' : 'retried', secondsSince(job?.processedOn))
    const problem = problemFromFailedReason(error.message)
    const facts = { operationId: job?.id, problem, ...(error.cause === undefined ? {} : { err: error.cause }) }
    if (final) logger.error(facts, 'operation failed')
    else logger.warn(facts, 'operation failed for now; it is tried again')
  })
  const registration = registerQueue(connection, queue)

  return {
    queue,
    get active() {
      return [...active.keys()]
    },
    isRunning: () => worker.isRunning(),
    ready: async () => {
      await worker.waitUntilReady()
    },
    async [Symbol.asyncDispose]() {
      registration[Symbol.dispose]()
      await drain(worker, active, options.drainMs ?? 20_000, options.abandonMs ?? 5000, logger)
    },
  }
}

function parseJob<K extends OperationKind>(kind: K, queue: string, data: unknown): JobOf[K] {
  const parsed = storedJobSchemas[kind].safeParse(data)
  if (parsed.success) return parsed.data.job as JobOf[K]
  const problems = parsed.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`)
  throw new JobMalformedError(queue, problems)
}

function firstPauseMs(job: Pick<Job, 'opts'> | undefined): number {
  const backoff = job?.opts.backoff
  return (typeof backoff === 'object' ? backoff.delay : backoff) ?? 0
}

function isPatient({ opts: { backoff } }: Job): boolean {
  return typeof backoff === 'object' && backoff.type === PATIENT_BACKOFF
}

function isFinal(error: unknown): boolean {
  return error instanceof OperationalError && error.retry !== 'backoff'
}

async function drain(
  worker: Worker,
  active: ReadonlyMap<string, AbortController>,
  drainMs: number,
  abandonMs: number,
  logger: Logger,
): Promise<void> {
  const handBack = setTimeout(() => {
    logger.info({ operations: [...active.keys()] }, 'drain deadline: handing active operations back')
    for (const controller of active.values()) controller.abort(new WorkerStoppingError())
  }, drainMs)
  let abandon: NodeJS.Timeout | undefined
  const abandoned = new Promise<'abandoned'>((resolve) => {
    // An idle worker has nothing to wait for, but closing it hangs while Redis is away.
    abandon = setTimeout(() => resolve('abandoned'), active.size === 0 ? abandonMs : drainMs + abandonMs)
  })
  const outcome = await Promise.race([worker.close(), abandoned])
  clearTimeout(handBack)
  clearTimeout(abandon)
  if (outcome === 'abandoned') {
    // Their locks run out, and other workers take them up: as after a crash.
    logger.warn({ operations: [...active.keys()] }, 'active operations did not stop in time; left to the stalled check')
  }
}

function secondsSince(epochMs: number | undefined): number {
  return epochMs === undefined ? 0 : Math.max(0, Date.now() - epochMs) / 1000
}
