/**
 * The set of queues that exist, since host queues (`restore.db1`) come and go with their workers.
 * Losing it is harmless: workers enter theirs again at every connection.
 */
import { parseQueueName } from '@tidemark/contracts'
import type { OperationKind } from '@tidemark/contracts'
import type { RedisConnection } from './redis.ts'

function keyOf(connection: RedisConnection): string {
  return `${connection.prefix}:queues`
}

/** Enters `queue` now and at every reconnection, until disposed. */
export function registerQueue(connection: RedisConnection, queue: string): Disposable {
  const enter = (): void => {
    connection.client.sadd(keyOf(connection), queue).catch(() => {})
  }
  connection.client.on('ready', enter)
  if (connection.client.status === 'ready') enter()
  return {
    [Symbol.dispose]() {
      connection.client.off('ready', enter)
    },
  }
}

export async function enterQueue(connection: RedisConnection, queue: string): Promise<void> {
  await connection.client.sadd(keyOf(connection), queue)
}

/** The shared queue of the kind first, then its host queues. */
export async function queuesOfKind(connection: RedisConnection, kind: OperationKind): Promise<string[]> {
  const names = await connection.client.smembers(keyOf(connection))
  const hosts = names.filter((name) => name !== kind && parseQueueName(name)?.kind === kind)
  return [kind, ...hosts.sort()]
}
