import { afterAll, beforeAll, beforeEach, afterEach, describe, expect, test } from 'vitest'
import { operationIdSchema } from '@tidemark/contracts'
import {
  IdempotencyKeyReusedError,
  OperationConflictError,
  OperationQueue,
  QueueUnavailableError,
  connectRedis,
} from '@tidemark/queue'
import { freePort, startRedis } from '@tidemark/testkit'
import type { TestRedis } from '@tidemark/testkit'
import { QueueBench, backupResult, connected, restoreRequest, untilAborted } from './fixture.ts'

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

test('a backup asked for is a queued operation with defaults filled in', async () => {
  const { operationId, created } = await bench.queue.enqueueBackup({ cluster: 'main' })
  expect(created).toBe(true)
  expect(operationIdSchema.safeParse(operationId).success).toBe(true)
  expect(await bench.queue.readOperation(operationId)).toEqual({
    id: operationId,
    kind: 'backup',
    cluster: 'main',
    state: 'queued',
    createdAt: expect.any(String) as string,
    attempts: 0,
  })
  const job = await bench.queue.boardQueue('backup').getJob(operationId)
  expect(job?.data).toMatchObject({ job: { options: { verifyAfter: true } } })
})

test('an unknown operation is undefined, whatever its id looks like', async () => {
  expect(await bench.queue.readOperation('backup-00000000000000000000000000')).toBeUndefined()
  expect(await bench.queue.readOperation('../../etc/passwd')).toBeUndefined()
})

describe('one backup per cluster', () => {
  test('the same options join the operation under way, waiting or running', async () => {
    const first = await bench.queue.enqueueBackup({ cluster: 'main', options: { label: 'a' } })
    const second = await bench.queue.enqueueBackup({ cluster: 'main', options: { label: 'a', verifyAfter: true } })
    expect(second).toEqual({ operationId: first.operationId, created: false })

    await bench.worker({ kind: 'backup', process: (_job, { signal }) => untilAborted(signal) })
    await bench.reaches(first.operationId, ['running'])
    expect(await bench.queue.enqueueBackup({ cluster: 'main', options: { label: 'a' } })).toEqual(second)
  })

  test('other options are a conflict that names the operation in the way', async () => {
    const { operationId } = await bench.queue.enqueueBackup({ cluster: 'main' })
    const conflict = await bench.queue
      .enqueueBackup({ cluster: 'main', options: { label: 'b' } })
      .catch((error) => error as unknown)
    expect(conflict).toBeInstanceOf(OperationConflictError)
    expect((conflict as OperationConflictError).operationId).toBe(operationId)
  })

  test('other clusters are not in the way, nor is an operation that has finished', async () => {
    await bench.worker({ kind: 'backup', process: async () => backupResult })
    const first = await bench.queue.enqueueBackup({ cluster: 'main' })
    expect((await bench.queue.enqueueBackup({ cluster: 'other', options: { label: 'b' } })).created).toBe(true)
    await bench.reaches(first.operationId, ['succeeded'])
    expect((await bench.queue.enqueueBackup({ cluster: 'main', options: { label: 'b' } })).created).toBe(true)
  })
})

describe('Idempotency-Key', () => {
  test('the same key and request lead to the same operation, also after it finished', async () => {
    const once = () => bench.queue.enqueueBackup({ cluster: 'main' }, { idempotencyKey: 'k1' })
    const { operationId } = await once()
    expect(await once()).toEqual({ operationId, created: false })
    await bench.worker({ kind: 'backup', process: async () => backupResult })
    await bench.reaches(operationId, ['succeeded'])
    expect(await once()).toEqual({ operationId, created: false })
  })

  test('the same key with another request is refused, and nothing is added', async () => {
    await bench.queue.enqueueBackup({ cluster: 'main' }, { idempotencyKey: 'k1' })
    const reuse = bench.queue.enqueueBackup({ cluster: 'other' }, { idempotencyKey: 'k1' })
    await expect(reuse).rejects.toThrow(IdempotencyKeyReusedError)
    expect(await bench.queue.countJobs(['backup'])).toContainEqual({ queue: 'backup', state: 'waiting', jobs: 1 })
  })

  test('a key that joined an operation remembers it after that has finished', async () => {
    const first = await bench.queue.enqueueBackup({ cluster: 'main' })
    const joined = await bench.queue.enqueueBackup({ cluster: 'main' }, { idempotencyKey: 'k2' })
    expect(joined).toEqual({ operationId: first.operationId, created: false })
    await bench.worker({ kind: 'backup', process: async () => backupResult })
    await bench.reaches(first.operationId, ['succeeded'])
    expect(await bench.queue.enqueueBackup({ cluster: 'main' }, { idempotencyKey: 'k2' })).toEqual(joined)
  })

  test('of twenty requests at once with one key, one creates the operation and all name it', async () => {
    const all = await Promise.all(
      Array.from({ length: 20 }, () => bench.queue.enqueueRestore(restoreRequest, { idempotencyKey: 'k3' })),
    )
    expect(new Set(all.map(({ operationId }) => operationId)).size).toBe(1)
    expect(all.filter(({ created }) => created)).toHaveLength(1)
  })
})

test('work for one host goes to its own queue and is found by its id alone', async () => {
  const { operationId } = await bench.queue.enqueueRestore({ ...restoreRequest, host: 'db1.example.net' })
  expect(await bench.queue.boardQueue('restore').count()).toBe(0)
  expect(await bench.queue.boardQueue('restore', 'db1.example.net').count()).toBe(1)
  expect(await bench.queue.readOperation(operationId)).toMatchObject({ state: 'queued' })
})

test('a request of the wrong form never reaches Redis', async () => {
  const wrong = { cluster: 'main', options: { sped: 'fast' } }
  await expect(bench.queue.enqueueBackup(wrong as never)).rejects.toThrow(/sped/)
  expect(await bench.queue.boardQueue('backup').count()).toBe(0)
})

describe('without Redis', () => {
  test('a producer that never found Redis says so within three seconds', async () => {
    await using connection = connectRedis({ url: `redis://127.0.0.1:${await freePort()}`, prefix: '{x}' }, 'producer')
    await using queue = new OperationQueue({ connection })
    const started = performance.now()
    await expect(queue.enqueueBackup({ cluster: 'main' })).rejects.toThrow(QueueUnavailableError)
    await expect(queue.readOperation('backup-00000000000000000000000000')).rejects.toThrow(QueueUnavailableError)
    expect(performance.now() - started).toBeLessThan(3000)
  })

  test('a producer that lost Redis says so within three seconds, and works again when it is back', async () => {
    await using own = await startRedis()
    await using bench = new QueueBench(own)
    await connected(bench)
    const { operationId } = await bench.queue.enqueueBackup({ cluster: 'main' })
    await own.killHard()
    const started = performance.now()
    await expect(bench.queue.enqueueBackup({ cluster: 'other' })).rejects.toThrow(QueueUnavailableError)
    expect(performance.now() - started).toBeLessThan(3000)
    await own.start()
    await connected(bench)
    expect(await bench.queue.readOperation(operationId)).toMatchObject({ state: 'queued' })
  })
})
