/**
 * Connections to Redis, in two tempers.
 *
 * A producer must answer its caller, so its commands fail within two seconds. A worker must outlast
 * an outage, so its commands wait for as long as it takes. Both always have an `error` listener
 * (without one, ioredis prints to the console) and log an outage once, not at every attempt.
 */
import { Redis } from 'ioredis'
import type { RedisOptions } from 'ioredis'
import { silentLogger } from '@tidemark/kernel'
import type { Logger, Redacted } from '@tidemark/kernel'
import { QueueUnavailableError, RedisUnsuitableError } from './errors.ts'

export const PRODUCER_DEADLINE_MS = 2000
const ERROR_LOG_INTERVAL_MS = 30_000

/** The shape of `config.redis`. */
export interface RedisTarget {
  readonly url: string
  readonly username?: string
  readonly password?: Redacted<string>
  /** In braces, so that a Redis Cluster keeps all keys in one slot. */
  readonly prefix: string
}

export type RedisRole = 'producer' | 'worker'

export interface RedisConnection extends AsyncDisposable {
  readonly client: Redis
  readonly role: RedisRole
  readonly prefix: string
  /**
   * Resolves when Redis answers and is fit to hold jobs: version ≥ 6.2, `noeviction`, AOF on.
   *
   * @throws {QueueUnavailableError} no answer.
   * @throws {RedisUnsuitableError} an answer, but jobs could be lost.
   */
  checkReady(): Promise<void>
  /** A second connection of the other or the same role, to the same Redis. */
  another(role: RedisRole): RedisConnection
}

/** Returns at once; connecting and reconnecting go on in the background. */
export function connectRedis(target: RedisTarget, role: RedisRole, logger: Logger = silentLogger): RedisConnection {
  const client = new Redis(target.url, optionsFor(target, role))
  logOutages(client, logger)
  return {
    client,
    role,
    prefix: target.prefix,
    checkReady: () => checkReady(client),
    another: (other) => connectRedis(target, other, logger),
    async [Symbol.asyncDispose]() {
      client.disconnect()
    },
  }
}

function optionsFor({ username, password }: RedisTarget, role: RedisRole): RedisOptions {
  const shared: RedisOptions = {
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password: password.reveal() }),
    connectTimeout: 5000,
    keepAlive: 10_000,
    retryStrategy: (times) => Math.min(100 * 2 ** Math.min(times, 5), 2000),
    // A replica after a failover refuses writes: connect anew, which leads to the new primary.
    reconnectOnError: (error) => (error.message.startsWith('READONLY') ? 2 : false),
  }
  return role === 'producer'
    ? { ...shared, enableOfflineQueue: false, maxRetriesPerRequest: 0, commandTimeout: PRODUCER_DEADLINE_MS }
    : { ...shared, enableOfflineQueue: true, maxRetriesPerRequest: null }
}

function logOutages(client: Redis, logger: Logger): void {
  let lastLoggedMs = Number.NEGATIVE_INFINITY
  let down = false
  client.on('error', (error: unknown) => {
    down = true
    if (performance.now() - lastLoggedMs < ERROR_LOG_INTERVAL_MS) return
    lastLoggedMs = performance.now()
    logger.warn({ err: error }, 'no connection to Redis; trying again')
  })
  client.on('ready', () => {
    if (down) logger.info({}, 'connected to Redis again')
    down = false
  })
}

async function checkReady(client: Redis): Promise<void> {
  // A worker's commands would wait for the connection: ask only when there is one.
  if (client.status !== 'ready') throw new QueueUnavailableError('readiness')
  let info: Map<string, string>
  try {
    await client.ping()
    info = parseInfo(await client.info())
  } catch (cause) {
    throw new QueueUnavailableError('readiness', cause)
  }
  assertSuitable(info)
}

function parseInfo(text: string): Map<string, string> {
  const lines = text.split(/\r?\n/).filter((line) => line.includes(':'))
  return new Map(lines.map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1)]))
}

/** @throws {RedisUnsuitableError} with every lack at once. */
export function assertSuitable(info: ReadonlyMap<string, string>): void {
  const version = info.get('redis_version') ?? 'unknown'
  const policy = info.get('maxmemory_policy') ?? 'unknown'
  const appendOnly = info.get('aof_enabled') === '1'
  const found: string[] = []
  const remedies: string[] = []
  const [major = 0, minor = 0] = version.split('.').map(Number)
  if (!(major > 6 || (major === 6 && minor >= 2))) {
    found.push(`version ${version}`)
    remedies.push('run Redis 6.2 or later, or Valkey')
  }
  if (policy !== 'noeviction') {
    found.push(`maxmemory-policy ${policy} may drop jobs`)
    remedies.push('set maxmemory-policy noeviction')
  }
  if (!appendOnly) {
    found.push('the append-only file is off, so a restart loses jobs')
    remedies.push('set appendonly yes')
  }
  if (found.length > 0) throw new RedisUnsuitableError(found, remedies, { version, policy, appendOnly })
}
