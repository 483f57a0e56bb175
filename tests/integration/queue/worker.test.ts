import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { MaintenanceResult, Operation } from '@tidemark/contracts'
import { type JobOutcome, RETRY_POLICIES } from '@tidemark/queue'
import { startRedis, until } from '@tidemark/testkit'
import type { TestRedis } from '@tidemark/testkit'
import {
  QueueBench,
  TestError,
  backupResult,
  connected,
  quick,
  restoreRequest,
  restoreResult,
  untilAborted,
} from './fixture.ts'

let redis: TestRedis
let bench: QueueBench
beforeAll(async () => {
  redis = await startRedis()
})
afterAll(() => redis[Symbol.asyncDispose]())
beforeEach(async () => {
  bench = new QueueBench(redis)
  await connected(bench)
})
afterEach(() => bench[Symbol.asyncDispose]())

test('a finished operation shows its result', async () => {
  await bench.worker({ kind: 'backup', process: async () => backupResult })
  const { operationId } = await bench.queue.enqueueBackup({ cluster: 'main' })
  expect(await bench.reaches(operationId, ['succeeded'])).toMatchObject({
    result: backupResult,
    attempts: 1,
    startedAt: expect.any(String) as string,
    finishedAt: expect.any(String) as string,
  })
})

test('the job arrives as it was asked for, with its operation id', async () => {
  const seen: unknown[] = []
  await bench.worker({
    kind: 'restore',
    process: async (job) => {
      seen.push(job)
      return restoreResult
    },
  })
  const { operationId } = await bench.queue.enqueueRestore(restoreRequest)
  await bench.reaches(operationId, ['succeeded'])
  expect(seen).toEqual([
    {
      ...restoreRequest,
      profile: 'clone',
      mode: 'new',
      configuration: 'stand-in',
      discardOnFailure: false,
      tablespaceMappings: [],
      operationId,
      requestedAt: expect.any(String) as string,
    },
  ])
})

const owedCopy = { cluster: 'main', task: { verb: 'copy', to: 'offsite', backupId: '0123456789abcdef' } } as const

describe('errors', () => {
  test.each(['never', 'after-operator'] as const)(
    "retry '%s' fails at once and keeps the whole problem",
    async (retry) => {
      await bench.worker({ kind: 'backup', process: () => Promise.reject(new TestError(retry)) })
      const { operationId } = await bench.queue.enqueueBackup({ cluster: 'main' })
      expect(await bench.reaches(operationId, ['failed'])).toMatchObject({
        attempts: 1,
        error: { code: 'TEST_ERROR', message: `fails with retry ${retry}`, hint: 'none', retry, facts: { lsn: '42' } },
      })
    },
  )

  test("retry 'backoff' is tried again, and the earlier error is gone once it succeeds", async () => {
    await bench.worker({
      kind: 'backup',
      process: async (_job, { attempt }) => {
        if (attempt < 3) throw new TestError('backoff')
        return backupResult
      },
    })
    const { operationId } = await bench.queue.enqueueBackup({ cluster: 'main' })
    const operation = await bench.reaches(operationId, ['succeeded'])
    expect(operation.attempts).toBe(3)
    expect(operation.error).toBeUndefined()
  })

  test('while it waits for the next try, the operation is retrying and shows why', async () => {
    const patient = { ...quick, backoffMs: 60_000 }
    const retryPolicies = { backup: patient, verify: patient, restore: patient, maintenance: patient, owed: patient }
    await using own = new QueueBench(redis, { retryPolicies })
    await connected(own)
    await own.worker({ kind: 'backup', process: () => Promise.reject(new TestError('backoff')) })
    const { operationId } = await own.queue.enqueueBackup({ cluster: 'main' })
    expect(await own.reaches(operationId, ['retrying'])).toMatchObject({ error: { code: 'TEST_ERROR' } })
  })

  test('tries run out after five, each counted as what it was, and BullMQ counts the failure too', async () => {
    const outcomes: JobOutcome[] = []
    await bench.worker({
      kind: 'backup',
      process: () => Promise.reject(new TestError('backoff')),
      metrics: { finished: (_queue, outcome) => outcomes.push(outcome) },
    })
    const { operationId } = await bench.queue.enqueueBackup({ cluster: 'main' })
    expect((await bench.reaches(operationId, ['failed'])).attempts).toBe(5)
    await until(() => outcomes.length === 5)
    expect(outcomes).toEqual(['retried', 'retried', 'retried', 'retried', 'failed'])
    expect((await bench.queue.boardQueue('backup').getMetrics('failed')).meta.count).toBe(1)
  })

  test('an owed copy is tried until the repository is back, also past what an operator has to set right', async () => {
    const outcomes: JobOutcome[] = []
    await bench.worker({
      kind: 'maintenance',
      retryPolicy: RETRY_POLICIES.maintenance,
      process: async (_job, { attempt }) => {
        if (attempt <= 40) throw new TestError(attempt % 2 === 0 ? 'backoff' : 'after-operator')
        return { verb: 'copy', to: 'offsite', backups: [], unavailable: [] } satisfies MaintenanceResult
      },
      metrics: { finished: (_queue, outcome) => outcomes.push(outcome) },
    })
    const { operationId } = await bench.queue.enqueueMaintenance(owedCopy, { owed: true })
    expect((await bench.reaches(operationId, ['succeeded'])).attempts).toBe(41)
    await until(() => outcomes.length === 41)
    expect(outcomes.slice(0, 40)).toEqual(Array.from({ length: 40 }, () => 'retried'))
  })

  test('an owed copy that can never succeed fails at once, and one that is asked for is tried as any other work', async () => {
    await bench.worker({
      kind: 'maintenance',
      retryPolicy: RETRY_POLICIES.maintenance,
      process: ({ task }) =>
        Promise.reject(new TestError(task.verb === 'copy' && task.backupId === 'missing' ? 'after-operator' : 'never')),
    })
    const owed = await bench.queue.enqueueMaintenance(owedCopy, { owed: true })
    expect((await bench.reaches(owed.operationId, ['failed'])).attempts).toBe(1)
    const asked = await bench.queue.enqueueMaintenance({ task: { ...owedCopy.task, backupId: 'missing' } })
    expect((await bench.reaches(asked.operationId, ['failed'])).attempts).toBe(1)
  })

  test('a restore is tried once, even when its error would pass', async () => {
    await bench.worker({ kind: 'restore', process: () => Promise.reject(new TestError('backoff')) })
    const { operationId } = await bench.queue.enqueueRestore(restoreRequest)
    expect((await bench.reaches(operationId, ['failed'])).attempts).toBe(1)
  })

  test('an unknown error is a bug: not tried again', async () => {
    await bench.worker({ kind: 'backup', process: () => Promise.reject(new Error('undefined is not a function')) })
    const { operationId } = await bench.queue.enqueueBackup({ cluster: 'main' })
    expect(await bench.reaches(operationId, ['failed'])).toMatchObject({ attempts: 1, error: { code: 'INTERNAL' } })
  })

  test('a result of the wrong form is a bug too, not a success', async () => {
    await bench.worker({ kind: 'backup', process: async () => ({ ...backupResult, stopLsn: 'somewhere' }) })
    const { operationId } = await bench.queue.enqueueBackup({ cluster: 'main' })
    expect(await bench.reaches(operationId, ['failed'])).toMatchObject({ error: { code: 'INTERNAL' } })
  })

  test('a job of another form is refused by the worker before any work', async () => {
    let worked = false
    await bench.worker({
      kind: 'backup',
      process: async () => {
        worked = true
        return backupResult
      },
    })
    const raw = bench.queue.boardQueue('backup')
    const job = await raw.add('backup', { cluster: 'main', dropEverything: true })
    await until(async () => (await job.getState()) === 'failed')
    expect((await raw.getJob(job.id ?? ''))?.failedReason).toContain('JOB_MALFORMED')
    expect(worked).toBe(false)
  })
})

test('progress is stored with rate and estimate, at most twice a second', async () => {
  const { promise: released, resolve: release } = Promise.withResolvers<void>()
  await bench.worker({
    kind: 'backup',
    process: async (_job, { progress }) => {
      let bytesDone = 0
      const timer = setInterval(() => {
        bytesDone += 1000
        progress({ phase: 'copy', bytesDone, bytesTotal: 1_000_000 })
      }, 10)
      await released
      clearInterval(timer)
      return backupResult
    },
  })
  const { operationId } = await bench.queue.enqueueBackup({ cluster: 'main' })
  const seen = new Set<string>()
  const started = performance.now()
  const withRate = await until(async () => {
    const { progress } = (await bench.queue.readOperation(operationId)) ?? {}
    if (progress) seen.add(progress.at)
    return progress?.etaSeconds !== undefined && seen.size >= 3 ? progress : undefined
  })
  expect(withRate.bytesPerSecond).toBeGreaterThan(0)
  expect(seen.size).toBeLessThanOrEqual(2 + ((performance.now() - started) / 1000) * 2)
  release()
  await bench.reaches(operationId, ['succeeded'])
})

describe('shutdown', () => {
  test('an active job may finish before the drain deadline', async () => {
    const { promise: finished, resolve: finish } = Promise.withResolvers<void>()
    const worker = await bench.worker({
      kind: 'backup',
      drainMs: 60_000,
      process: async () => {
        await finished
        return backupResult
      },
    })
    const { operationId } = await bench.queue.enqueueBackup({ cluster: 'main' })
    await bench.reaches(operationId, ['running'])
    const closing = worker[Symbol.asyncDispose]()
    finish()
    await closing
    expect(await bench.queue.readOperation(operationId)).toMatchObject({ state: 'succeeded' })
  })

  test('at the deadline an active job is handed back at once, costs no try, and another worker finishes it', async () => {
    const outcomes: JobOutcome[] = []
    const first = await bench.worker({
      kind: 'backup',
      process: (_job, { signal }) => untilAborted(signal),
      metrics: { finished: (_queue, outcome) => outcomes.push(outcome) },
    })
    const { operationId } = await bench.queue.enqueueBackup({ cluster: 'main' })
    await bench.reaches(operationId, ['running'])
    await first[Symbol.asyncDispose]()
    expect(await bench.queue.readOperation(operationId)).toMatchObject({ state: 'retrying' })
    expect(outcomes).toEqual(['handed_back'])
    expect((await bench.queue.boardQueue('backup').getJob(operationId))?.attemptsMade).toBe(0)

    await bench.worker({ kind: 'backup', process: async () => backupResult })
    expect((await bench.reaches(operationId, ['succeeded'])).attempts).toBe(2)
  })

  test('a job that does not obey is left to the stalled check, and disposal still ends', async () => {
    const first = await bench.worker({ kind: 'backup', abandonMs: 200, process: () => new Promise(() => {}) })
    const { operationId } = await bench.queue.enqueueBackup({ cluster: 'main' })
    await bench.reaches(operationId, ['running'])
    const started = performance.now()
    await first[Symbol.asyncDispose]()
    expect(performance.now() - started).toBeLessThan(5000)
  })

  test('an active restore is failed as interrupted, never handed to another worker', async () => {
    const first = await bench.worker({ kind: 'restore', process: (_job, { signal }) => untilAborted(signal) })
    const { operationId } = await bench.queue.enqueueRestore(restoreRequest)
    await bench.reaches(operationId, ['running'])
    await first[Symbol.asyncDispose]()
    expect(await bench.queue.readOperation(operationId)).toMatchObject({
      state: 'failed',
      error: { code: 'OPERATION_INTERRUPTED', retry: 'after-operator' },
    })
  })

  test('endless repeats end: a job started more often than allowed fails', async () => {
    const policy = { ...quick, maxStartedAttempts: 2 }
    const { operationId } = await bench.queue.enqueueBackup({ cluster: 'main' })
    for (const _start of [1, 2]) {
      const worker = await bench.worker({
        kind: 'backup',
        retryPolicy: policy,
        process: (_job, { signal }) => untilAborted(signal),
      })
      await bench.reaches(operationId, ['running'])
      await worker[Symbol.asyncDispose]()
    }
    await bench.worker({ kind: 'backup', retryPolicy: policy, process: async () => backupResult })
    expect(await bench.reaches(operationId, ['failed'])).toMatchObject({ error: { code: 'STARTED_TOO_OFTEN' } })
  })
})

describe('watching', () => {
  test('every state is seen once, up to the terminal one', async () => {
    const { operationId } = await bench.queue.enqueueBackup({ cluster: 'main' })
    const states: Operation['state'][] = []
    const watching = (async () => {
      for await (const { state } of bench.queue.watchOperation(operationId, AbortSignal.timeout(20_000)))
        states.push(state)
    })()
    await until(() => states.length === 1)
    const { promise: finished, resolve: finish } = Promise.withResolvers<void>()
    await bench.worker({
      kind: 'backup',
      process: async () => {
        await finished
        return backupResult
      },
    })
    await until(() => states.includes('running'))
    finish()
    await watching
    expect(states).toEqual(['queued', 'running', 'succeeded'])
  })

  test('ends when its signal fires, and knows nothing of unknown operations', async () => {
    const { operationId } = await bench.queue.enqueueBackup({ cluster: 'main' })
    const controller = new AbortController()
    const seen: string[] = []
    for await (const { state } of bench.queue.watchOperation(operationId, controller.signal)) {
      seen.push(state)
      controller.abort()
    }
    expect(seen).toEqual(['queued'])
    const unknown = bench.queue.watchOperation('backup-00000000000000000000000000', AbortSignal.timeout(5000))
    expect((await unknown.next()).done).toBe(true)
  })
})
