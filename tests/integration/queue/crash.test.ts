import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { newOperationId } from '@tidemark/contracts'
import { startRedis, until } from '@tidemark/testkit'
import type { TestRedis } from '@tidemark/testkit'
import { QueueBench, backupResult, connected, restoreRequest, restoreResult, untilAborted } from './fixture.ts'

let redis: TestRedis
let bench: QueueBench
let child: ChildProcess | undefined
beforeAll(async () => {
  redis = await startRedis()
})
afterAll(() => redis[Symbol.asyncDispose]())
beforeEach(async () => {
  bench = new QueueBench(redis)
  await connected(bench)
})
afterEach(async () => {
  child?.kill('SIGKILL')
  child = undefined
  await bench[Symbol.asyncDispose]()
})

/** Starts a worker process and kills it −9 as soon as it is at work on the operation. */
async function killInMidJob(kind: 'backup' | 'restore', operationId: string): Promise<void> {
  const script = fileURLToPath(new URL('worker-process.ts', import.meta.url))
  child = spawn(process.execPath, [script, kind, bench.target.url, bench.target.prefix], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let output = ''
  child.stdout?.on('data', (chunk: Buffer) => {
    output += chunk.toString()
  })
  await until(() => output.includes(operationId), { what: 'the worker process to take the job' })
  const exited = once(child, 'exit')
  child.kill('SIGKILL')
  await exited
}

test('a backup whose worker was killed is taken up again by another worker and finished', async () => {
  const { operationId } = await bench.queue.enqueueBackup({ cluster: 'main' })
  await killInMidJob('backup', operationId)
  expect(await bench.queue.readOperation(operationId)).toMatchObject({ state: 'running', attempts: 1 })
  await bench.worker({ kind: 'backup', process: async () => backupResult })
  expect(await bench.reaches(operationId, ['succeeded'])).toMatchObject({ attempts: 2 })
})

test('a restore whose worker was killed is failed, and never started again', async () => {
  const { operationId } = await bench.queue.enqueueRestore(restoreRequest)
  await killInMidJob('restore', operationId)
  let started = false
  await bench.worker({
    kind: 'restore',
    process: async () => {
      started = true
      return restoreResult
    },
  })
  expect(await bench.reaches(operationId, ['failed'])).toMatchObject({
    error: { code: 'WORKER_LOST', retry: 'after-operator' },
  })
  expect(started).toBe(false)
})

test('a scheduled restore whose worker was killed is not started for ever', async () => {
  // BullMQ does not apply maxStalledCount to jobs that a scheduler made; maxStartedAttempts is what stops them.
  const operationId = newOperationId('restore', Date.now(), randomBytes(10))
  const job = { ...restoreRequest, profile: 'clone', operationId, requestedAt: new Date().toISOString() }
  const data = { job, requestDigest: 'a'.repeat(64), callId: 'schedule' }
  const raw = bench.queue.boardQueue('restore')
  await raw.upsertJobScheduler('yearly', { every: 365 * 86_400_000 }, { name: 'restore', data })
  await killInMidJob('restore', operationId)
  let started = false
  await bench.worker({
    kind: 'restore',
    process: async () => {
      started = true
      return restoreResult
    },
  })
  const [failed] = await until(async () => {
    const jobs = await raw.getFailed()
    return jobs.length > 0 && jobs
  })
  expect(failed?.failedReason).toBe('job started more than allowable limit')
  expect(started).toBe(false)
})

test('a worker outlasts Redis: the job in hand is finished, and further jobs are taken', async () => {
  await using own = await startRedis()
  await using bench = new QueueBench(own)
  await connected(bench)
  const { promise: finished, resolve: finish } = Promise.withResolvers<void>()
  await bench.worker({
    kind: 'backup',
    lockDurationMs: 30_000,
    process: async () => {
      await finished
      return backupResult
    },
  })
  const first = await bench.queue.enqueueBackup({ cluster: 'main' })
  await bench.reaches(first.operationId, ['running'])
  await own.killHard()
  finish()
  await own.start()
  await connected(bench)
  expect(await bench.reaches(first.operationId, ['succeeded'])).toMatchObject({ attempts: 1 })
  const second = await bench.queue.enqueueBackup({ cluster: 'main' })
  await bench.reaches(second.operationId, ['succeeded'])
})

test('a worker that lost its lock aborts its job with the reason', async () => {
  let reason: unknown
  await bench.worker({
    kind: 'backup',
    lockDurationMs: 1000,
    process: async (_job, { signal, attempt }) => {
      if (attempt > 1) return backupResult
      await until(() => signal.aborted)
      reason = signal.reason
      throw signal.reason
    },
  })
  const { operationId } = await bench.queue.enqueueBackup({ cluster: 'main' })
  await bench.reaches(operationId, ['running'])
  const raw = bench.queue.boardQueue('backup')
  const client = (await raw.getBackend().client) as unknown as { set(key: string, value: string): Promise<unknown> }
  await client.set(raw.toKey(`${operationId}:lock`), 'somebody else')
  await until(() => reason)
  expect(reason).toMatchObject({ code: 'LOCK_LOST' })
})

test('with Redis gone, workers, watchers and queues can still be shut down', async () => {
  await using own = await startRedis()
  const bench = new QueueBench(own)
  await connected(bench)
  await bench.worker({ kind: 'backup', abandonMs: 500, process: (_job, { signal }) => untilAborted(signal) })
  await bench.worker({ kind: 'verify', abandonMs: 500, process: (_job, { signal }) => untilAborted(signal) })
  const { operationId } = await bench.queue.enqueueBackup({ cluster: 'main' })
  await bench.reaches(operationId, ['running'])
  const controller = new AbortController()
  let seen = 0
  const watching = (async () => {
    for await (const _snapshot of bench.queue.watchOperation(operationId, controller.signal)) seen += 1
  })()
  await until(() => seen > 0)
  await own.killHard()
  const started = performance.now()
  controller.abort()
  await watching
  await bench[Symbol.asyncDispose]()
  expect(performance.now() - started).toBeLessThan(10_000)
})
