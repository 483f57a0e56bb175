import { OperationQueue, RETRY_POLICIES, connectRedis, startWorker } from '@tidemark/queue'
import type {
  OperationQueueOptions,
  RedisTarget,
  RetryPolicies,
  RetryPolicy,
  RunningWorker,
  StartWorkerOptions,
} from '@tidemark/queue'
import type { BackupResult, Operation, OperationKind, RestoreResult } from '@tidemark/contracts'
import { OperationalError } from '@tidemark/kernel'
import type { Retry } from '@tidemark/kernel'
import { until } from '@tidemark/testkit'
import type { TestRedis } from '@tidemark/testkit'

export const backupResult: BackupResult = {
  backupId: '0123456789abcdef',
  cluster: 'main',
  verdict: 'intact',
  startLsn: '0/2000028',
  stopLsn: '0/2000100',
  timeline: 1,
  bytes: 1000,
  storedBytes: 300,
  files: 3,
  durationMs: 12,
  repositories: [{ name: 'local', outcome: 'stored' }],
}

export const restoreResult: RestoreResult = {
  backupId: '0123456789abcdef',
  targetDirectory: '/srv/restore',
  bytes: 1000,
  files: 3,
  durationMs: 12,
  startCommand: 'pg_ctl start',
}

export const restoreRequest = { cluster: 'main', backupId: 'latest', targetDirectory: '/srv/restore' }

/** Short waits, same rules. */
export const quick: RetryPolicy = { ...RETRY_POLICIES.backup, backoffMs: 50 }
export const quickPolicies: RetryPolicies = {
  ...RETRY_POLICIES,
  backup: quick,
  verify: quick,
  owed: { ...RETRY_POLICIES.owed, backoffMs: 1 },
}

let prefixes = 0
/** A prefix of its own keeps tests on one Redis apart. */
export function targetOn(redis: TestRedis): RedisTarget {
  prefixes += 1
  return { url: redis.url, prefix: `{test-${process.pid}-${prefixes}}` }
}

export class QueueBench implements AsyncDisposable {
  readonly target: RedisTarget
  readonly queue: OperationQueue
  readonly #stack = new AsyncDisposableStack()

  constructor(redis: TestRedis, options: Partial<OperationQueueOptions> = {}) {
    this.target = targetOn(redis)
    const connection = this.#stack.use(connectRedis(this.target, 'producer'))
    this.queue = this.#stack.use(new OperationQueue({ connection, retryPolicies: quickPolicies, ...options }))
  }

  /** A worker that sees stalled jobs soon. */
  async worker<K extends OperationKind>(options: Omit<StartWorkerOptions<K>, 'connection'>): Promise<RunningWorker> {
    const connection = this.#stack.use(connectRedis(this.target, 'worker'))
    const worker = startWorker({
      lockDurationMs: 2000,
      stalledIntervalMs: 500,
      drainMs: 0,
      ...(options.kind === 'restore' ? {} : { retryPolicy: quick }),
      ...options,
      connection,
    })
    this.#stack.use(worker)
    await worker.ready()
    return worker
  }

  /** Polls until the operation is in one of `states`. */
  reaches(id: string, states: readonly Operation['state'][], timeoutMs = 30_000): Promise<Operation> {
    return until(
      async () => {
        const operation = await this.queue.readOperation(id)
        return operation && states.includes(operation.state) ? operation : undefined
      },
      { what: `${id} to be ${states.join(' or ')}`, timeoutMs },
    )
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync()
  }
}

/** Resolves once the queue answers; connecting goes on in the background. */
export async function connected(bench: QueueBench): Promise<void> {
  await until(() => bench.queue.countJobs(['backup']), { what: 'a connection' })
}

export class TestError extends OperationalError {
  override readonly code = 'TEST_ERROR'
  override readonly retry: Retry
  constructor(retry: Retry) {
    super(`fails with retry ${retry}`, { hint: 'none', facts: { lsn: 42n } })
    this.retry = retry
  }
}

/** Rejects as soon as `signal` fires, like a well-behaved operation. */
export function untilAborted(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    const stop = (): void => reject(signal.reason as Error)
    if (signal.aborted) stop()
    else signal.addEventListener('abort', stop, { once: true })
  })
}
