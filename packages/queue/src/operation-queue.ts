/**
 * Where operations are asked for and looked up.
 *
 * Every call answers within two seconds: Redis away is QueueUnavailableError, never a hang. A call
 * that failed so may still have taken effect (the answer got lost): repeat it with the same
 * Idempotency-Key. Jobs are clear text in Redis; requests hold ids and names, never secrets.
 */
import { createHash, randomBytes } from 'node:crypto'
import { Queue, QueueEvents } from 'bullmq'
import type { Job } from 'bullmq'
import {
  isTerminal,
  kindOfOperation,
  newOperationId,
  operationIdFromDigest,
  operationIdSchema,
  queueName,
  requestSchemas,
  storedJobSchemas,
} from '@tidemark/contracts'
import type {
  BackupRequest,
  MaintenanceRequest,
  Operation,
  OperationKind,
  RequestOf,
  RestoreRequest,
  VerifyRequest,
} from '@tidemark/contracts'
import { OperationalError, silentLogger, systemClock } from '@tidemark/kernel'
import type { Clock, Logger } from '@tidemark/kernel'
import { IdempotencyKeyReusedError, OperationConflictError, QueueUnavailableError } from './errors.ts'
import { enterQueue, queuesOfKind } from './known-queues.ts'
import { operationOf } from './operation-of.ts'
import { PRODUCER_DEADLINE_MS } from './redis.ts'
import type { RedisConnection } from './redis.ts'
import { requestDigest } from './request-digest.ts'
import { PATIENT_BACKOFF, RETRY_POLICIES } from './retry-policy.ts'
import type { RetryPolicies, RetryPolicy } from './retry-policy.ts'

const DAY_SECONDS = 86_400
const IDEMPOTENCY_SECONDS = DAY_SECONDS
const CLOSE_DEADLINE_MS = 1000

export interface EnqueueOptions {
  /** The same key and request within 24 h lead to the same operation. */
  readonly idempotencyKey?: string
  /** Put it on this host's queue: a `file://` repository or the target directory is there. */
  readonly host?: string
  /** Something that was promised and is to come true however long it takes: tried for days, also past what an operator has to set right. */
  readonly owed?: boolean
}

export interface Enqueued {
  readonly operationId: string
  /** False when the request led to an operation that already existed. */
  readonly created: boolean
}

export interface OperationQueueOptions {
  /** Of role 'producer'; stays the caller's to dispose, after the queue. */
  readonly connection: RedisConnection
  readonly logger?: Logger
  readonly clock?: Clock
  readonly retryPolicies?: RetryPolicies
}

export interface QueueJobCount {
  readonly queue: string
  readonly state: string
  readonly jobs: number
}

export class OperationQueue implements AsyncDisposable {
  readonly #connection: RedisConnection
  readonly #logger: Logger
  readonly #clock: Clock
  readonly #policies: RetryPolicies
  readonly #queues = new Map<string, Queue>()
  readonly #events = new Map<string, QueueEvents>()
  readonly #watchers = new Map<string, Set<() => void>>()
  #eventsConnection: RedisConnection | undefined

  constructor(options: OperationQueueOptions) {
    if (options.connection.role !== 'producer') throw new TypeError("a queue needs a connection of role 'producer'")
    this.#connection = options.connection
    this.#logger = options.logger ?? silentLogger
    this.#clock = options.clock ?? systemClock
    this.#policies = options.retryPolicies ?? RETRY_POLICIES
  }

  /**
   * At most one backup per cluster waits or runs: asking again with the same options joins it.
   *
   * @throws {OperationConflictError} one is under way with other options.
   * @throws {IdempotencyKeyReusedError}
   * @throws {QueueUnavailableError}
   */
  enqueueBackup(request: BackupRequest, options: EnqueueOptions = {}): Promise<Enqueued> {
    return this.#enqueue('backup', request, options, `backup-${request.cluster}`)
  }

  /** @throws {IdempotencyKeyReusedError} @throws {QueueUnavailableError} */
  enqueueVerify(request: VerifyRequest, options: EnqueueOptions = {}): Promise<Enqueued> {
    return this.#enqueue('verify', request, options)
  }

  /**
   * Goes to the queue of `request.host`, when there is one, else of `options.host`.
   *
   * @throws {IdempotencyKeyReusedError} @throws {QueueUnavailableError}
   */
  enqueueRestore(request: RestoreRequest, options: EnqueueOptions = {}): Promise<Enqueued> {
    const host = request.host ?? options.host
    return this.#enqueue('restore', request, { ...options, ...(host === undefined ? {} : { host }) })
  }

  /** The one kind that can be `owed`. @throws {IdempotencyKeyReusedError} @throws {QueueUnavailableError} */
  enqueueMaintenance(request: MaintenanceRequest, options: EnqueueOptions = {}): Promise<Enqueued> {
    return this.#enqueue('maintenance', request, options)
  }

  /** Undefined when no such operation is known: never existed, or removed by age. @throws {QueueUnavailableError} */
  async readOperation(id: string): Promise<Operation | undefined> {
    return (await this.#read(id))?.operation
  }

  /**
   * Snapshots of an operation, the first at once, then one per change, ending with the terminal one,
   * or when the operation is removed or `signal` fires. Changes in quick succession may be merged.
   * An outage of Redis in between is waited out.
   *
   * @throws {QueueUnavailableError} only if the first look fails.
   */
  async *watchOperation(
    id: string,
    signal: AbortSignal,
    { pollMs = 2000 }: { readonly pollMs?: number } = {},
  ): AsyncGenerator<Operation, void, void> {
    let lastSnapshot: string | undefined
    while (!signal.aborted) {
      // Listening begins before reading, so that no change falls in between. Polling covers events
      // that were lost with a connection.
      using change = this.#nextChange(id, pollMs, signal)
      try {
        const found = await this.#read(id)
        if (found === undefined) return
        this.#listen(found.queue)
        const snapshot = JSON.stringify(found.operation)
        if (snapshot !== lastSnapshot) yield found.operation
        lastSnapshot = snapshot
        if (isTerminal(found.operation.state)) return
      } catch (error) {
        if (lastSnapshot === undefined || !(error instanceof QueueUnavailableError)) throw error
      }
      await change.happened
    }
  }

  /** Whether a worker has ever served this queue since Redis was empty. @throws {QueueUnavailableError} */
  isKnownHost(kind: OperationKind, host: string): Promise<boolean> {
    return this.#answer('looking up the host', async () =>
      (await queuesOfKind(this.#connection, kind)).includes(queueName(kind, host)),
    )
  }

  /** Jobs per queue and state, for gauges. @throws {QueueUnavailableError} */
  countJobs(kinds: readonly OperationKind[]): Promise<QueueJobCount[]> {
    return this.#answer('counting jobs', async () => {
      const names = (await Promise.all(kinds.map((kind) => queuesOfKind(this.#connection, kind)))).flat()
      const counts = await Promise.all(
        names.map(async (queue) => {
          const byState = await this.#queue(queue).getJobCounts('waiting', 'active', 'delayed', 'completed', 'failed')
          return Object.entries(byState).map(([state, jobs]) => ({ queue, state, jobs }))
        }),
      )
      return counts.flat()
    })
  }

  /** Connected workers per queue, for gauges. @throws {QueueUnavailableError} */
  countWorkers(kinds: readonly OperationKind[]): Promise<{ readonly queue: string; readonly workers: number }[]> {
    return this.#answer('counting workers', async () => {
      const names = (await Promise.all(kinds.map((kind) => queuesOfKind(this.#connection, kind)))).flat()
      return Promise.all(names.map(async (queue) => ({ queue, workers: await this.#queue(queue).getWorkersCount() })))
    })
  }

  /** BullMQ's own object, for Bull Board; the one thing that leaves this package unwrapped. */
  boardQueue(kind: OperationKind, host?: string): Queue {
    return this.#queue(queueName(kind, host))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closing = [...this.#events.values(), ...this.#queues.values()].map((opened) => opened.close())
    // Closing waits for a connection's end, which never comes while that connection is being re-established.
    const { promise: late, resolve } = Promise.withResolvers<void>()
    const timer = setTimeout(resolve, CLOSE_DEADLINE_MS)
    await Promise.race([Promise.allSettled(closing), late])
    clearTimeout(timer)
    await this.#eventsConnection?.[Symbol.asyncDispose]()
  }

  async #enqueue<K extends OperationKind>(
    kind: K,
    request: RequestOf[K],
    { idempotencyKey, host, owed }: EnqueueOptions,
    deduplicationId?: string,
  ): Promise<Enqueued> {
    const parsed = requestSchemas[kind].parse(request)
    const digest = requestDigest(parsed)
    const queue = queueName(kind, host)
    const policy = this.#policies[owed === true ? 'owed' : kind]
    const keyDigest =
      idempotencyKey === undefined ? undefined : createHash('sha256').update(`${kind}\n${idempotencyKey}`).digest()
    const now = this.#clock.now()
    const operationId =
      keyDigest === undefined
        ? newOperationId(kind, now.getTime(), randomBytes(10))
        : operationIdFromDigest(kind, keyDigest)
    const callId = randomBytes(8).toString('hex')
    const data = storedJobSchemas[kind].parse({
      job: { operationId, requestedAt: now.toISOString(), ...parsed },
      requestDigest: digest,
      callId,
    })

    return this.#answer('enqueueing', async () => {
      // The key's own memory outlives the job and also covers a request that joined another's operation.
      const keyName = keyDigest && `${this.#connection.prefix}:idempotency:${keyDigest.toString('hex')}`
      if (keyName) {
        const earlier = await this.#connection.client.get(keyName)
        if (earlier !== null) {
          const [earlierId = '', earlierDigest] = earlier.split(' ')
          if (earlierDigest !== digest) throw new IdempotencyKeyReusedError(earlierId)
          return { operationId: earlierId, created: false }
        }
      }
      await enterQueue(this.#connection, queue)
      const enqueued = await this.#add(kind, queue, data, operationId, { policy, deduplicationId })
      if (keyName) {
        await this.#connection.client.set(keyName, `${enqueued.operationId} ${digest}`, 'EX', IDEMPOTENCY_SECONDS, 'NX')
      }
      return enqueued
    })
  }

  async #add(
    kind: OperationKind,
    queue: string,
    data: { readonly job: { readonly cluster?: string }; readonly requestDigest: string; readonly callId: string },
    operationId: string,
    { policy, deduplicationId }: { readonly policy: RetryPolicy; readonly deduplicationId: string | undefined },
  ): Promise<Enqueued> {
    const { attempts, backoffMs, patient } = policy
    const type = patient === true ? PATIENT_BACKOFF : 'exponential'
    for (let look = 1; look <= 3; look += 1) {
      const added = await this.#queue(queue).add(kind, data, {
        jobId: operationId,
        attempts,
        ...(backoffMs > 0 ? { backoff: { type, delay: backoffMs, jitter: 0.5 } } : {}),
        ...(deduplicationId === undefined ? {} : { deduplication: { id: deduplicationId } }),
        removeOnComplete: { age: 14 * DAY_SECONDS, count: 5000 },
        removeOnFail: { age: 30 * DAY_SECONDS, count: 5000 },
        keepLogs: 200,
        stackTraceLimit: 20,
        sizeLimit: 65_536,
      })
      // BullMQ does not tell a new job from one that was there: the stored data does.
      const existing: Job | undefined = await this.#queue(queue).getJob(added.id ?? '')
      // Removed in this very moment: then nothing is under way, and adding again decides.
      if (existing === undefined) continue
      const stored = storedJobSchemas[kind].safeParse(existing.data)
      const id = existing.id ?? operationId
      if (stored.success && stored.data.callId === data.callId) return { operationId: id, created: true }
      if (stored.success && stored.data.requestDigest === data.requestDigest) return { operationId: id, created: false }
      if (id === operationId) throw new IdempotencyKeyReusedError(id)
      throw new OperationConflictError(id, data.job.cluster ?? 'all clusters')
    }
    throw new QueueUnavailableError('enqueueing')
  }

  async #read(id: string): Promise<{ queue: string; operation: Operation } | undefined> {
    if (!operationIdSchema.safeParse(id).success) return undefined
    const kind = kindOfOperation(id)
    return this.#answer('looking up the operation', async () => {
      for (const queue of await queuesOfKind(this.#connection, kind)) {
        const operation = await this.#readFrom(queue, kind, id)
        if (operation) return { queue, operation }
      }
      return undefined
    })
  }

  async #readFrom(queue: string, kind: OperationKind, id: string): Promise<Operation | undefined> {
    for (let look = 1; ; look += 1) {
      const job: Job | undefined = await this.#queue(queue).getJob(id)
      if (job === undefined) return undefined
      const state = await job.getState()
      if (state === 'unknown') return undefined
      // The job was read before its state: if it ended or failed for now in between, its result or reason is missing. Look again. (A job
      // that was handed back has no reason; it is read three times.)
      const ended = state === 'completed' || state === 'failed'
      const stale = ended
        ? job.finishedOn === undefined
        : state !== 'active' && job.attemptsStarted > 0 && !job.failedReason
      if (stale && look < 3) continue
      return operationOf(kind, job, state)
    }
  }

  #queue(name: string): Queue {
    const open = this.#queues.get(name)
    if (open) return open
    const queue = new Queue(name, {
      connection: this.#connection.client,
      prefix: this.#connection.prefix,
      // Our readiness check asks for more; and BullMQ's would break this Queue for good if Redis went away during it.
      skipVersionCheck: true,
      streams: { events: { maxLen: 10_000 } },
    })
    queue.on('error', () => {
      // The connection logs outages, and every call reports its own failure.
    })
    this.#queues.set(name, queue)
    return queue
  }

  #listen(queue: string): void {
    if (this.#events.has(queue)) return
    this.#eventsConnection ??= this.#connection.another('worker')
    const events = new QueueEvents(queue, {
      connection: this.#eventsConnection.client,
      prefix: this.#connection.prefix,
    })
    this.#events.set(queue, events)
    events.on('error', (error) => this.#logger.debug({ err: error, queue }, 'no queue events for now; polling goes on'))
    const wake = ({ jobId }: { jobId: string }): void => {
      for (const notify of this.#watchers.get(jobId) ?? []) notify()
    }
    for (const name of [
      'waiting',
      'active',
      'progress',
      'delayed',
      'stalled',
      'completed',
      'failed',
      'removed',
    ] as const) {
      events.on(name, wake)
    }
  }

  #nextChange(id: string, pollMs: number, signal: AbortSignal): Disposable & { readonly happened: Promise<void> } {
    const { promise: happened, resolve } = Promise.withResolvers<void>()
    const notify = (): void => resolve()
    const timer = setTimeout(notify, pollMs)
    signal.addEventListener('abort', notify, { once: true })
    const watchers = this.#watchers.get(id) ?? new Set()
    this.#watchers.set(id, watchers.add(notify))
    return {
      happened,
      [Symbol.dispose]: () => {
        clearTimeout(timer)
        signal.removeEventListener('abort', notify)
        watchers.delete(notify)
        if (watchers.size === 0) this.#watchers.delete(id)
      },
    }
  }

  /** Runs `ask` under the deadline; everything that Redis or BullMQ throws means that the queue is not usable. */
  async #answer<T>(what: string, ask: () => Promise<T>): Promise<T> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => reject(new QueueUnavailableError(what)), PRODUCER_DEADLINE_MS)
    })
    const asking = ask()
    asking.catch(() => {})
    try {
      return await Promise.race([asking, late])
    } catch (error) {
      if (error instanceof OperationalError || error instanceof TypeError) throw error
      throw new QueueUnavailableError(what, error)
    } finally {
      clearTimeout(timer)
    }
  }
}
