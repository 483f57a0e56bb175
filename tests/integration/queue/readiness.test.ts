import { expect, test } from 'vitest'
import { QueueUnavailableError, RedisUnsuitableError, connectRedis } from '@tidemark/queue'
import type { RedisRole } from '@tidemark/queue'
import { freePort, startRedis, until } from '@tidemark/testkit'
import type { TestRedis } from '@tidemark/testkit'

async function verdict(redis: TestRedis, role: RedisRole): Promise<unknown> {
  await using connection = connectRedis({ url: redis.url, prefix: '{x}' }, role)
  await until(() => connection.client.status === 'ready')
  return await connection.checkReady().then(
    () => 'ready',
    (error: unknown) => error,
  )
}

test('a durable Redis is ready, for producers and workers', async () => {
  await using redis = await startRedis()
  expect(await verdict(redis, 'producer')).toBe('ready')
  expect(await verdict(redis, 'worker')).toBe('ready')
})

test('eviction and a missing append-only file are reported together, each with its remedy', async () => {
  await using redis = await startRedis({ args: ['--maxmemory-policy', 'allkeys-lru', '--appendonly', 'no'] })
  const error = (await verdict(redis, 'producer')) as RedisUnsuitableError
  expect(error).toBeInstanceOf(RedisUnsuitableError)
  expect(error.hint).toContain('set maxmemory-policy noeviction')
  expect(error.hint).toContain('set appendonly yes')
  expect(error.facts).toMatchObject({ policy: 'allkeys-lru', appendOnly: false })
})

test('no Redis is not ready, at once, also for a worker, whose commands would wait', async () => {
  await using connection = connectRedis({ url: `redis://127.0.0.1:${await freePort()}`, prefix: '{x}' }, 'worker')
  await expect(connection.checkReady()).rejects.toThrow(QueueUnavailableError)
})
