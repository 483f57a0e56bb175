import { abortError, throwIfAborted } from '@tidemark/kernel'
import { Client, type ClientConfig } from 'pg'
import { databaseOf, defaultConnectTimeoutMs, type ConnectionTarget } from './connection-target.ts'
import { AuthenticationFailedError, DatabaseUnreachableError } from './errors.ts'
import { createMessageSocket } from './message-socket.ts'
import { translateConnectError, type ConnectionMode } from './translate-error.ts'
import { wireOf } from './wire.ts'

/** After this long without traffic the kernel starts to probe whether the peer still exists. */
const keepAliveDelayMs = 30_000

/**
 * A logged-in pg client with TCP keepalive on. Nothing is taken from PG* variables or ~/.pgpass.
 *
 * Settings that a role may carry (ALTER ROLE … SET) and that would change what we read are pinned
 * through `options`: they outrank the role's.
 *
 * @throws {DatabaseUnreachableError} no answer within `connectTimeoutMs`, or nobody listens.
 * @throws {AuthenticationFailedError}
 * @throws {ReplicationRightMissingError}
 */
export async function openClient(
  target: ConnectionTarget,
  mode: ConnectionMode,
  statementTimeoutMs: number,
  signal: AbortSignal,
): Promise<Client> {
  throwIfAborted(signal, 'connecting to PostgreSQL')
  const { host, port } = target
  const client = new Client(clientConfig(target, mode, statementTimeoutMs))
  // A lost connection is reported to whoever waits for an answer; without a listener it would end the process.
  client.on('error', () => {})
  const wire = wireOf(client)
  const timeoutMs = target.connectTimeoutMs ?? defaultConnectTimeoutMs
  let stopped: Error | undefined
  const stop = (reason: Error): void => {
    stopped ??= reason
    wire.stream.destroy()
  }
  const onAbort = (): void => stop(abortError(signal, 'connecting to PostgreSQL'))
  const timer = setTimeout(
    () => stop(new DatabaseUnreachableError({ host, port, reason: `no login within ${timeoutMs} ms` })),
    timeoutMs,
  )
  let tlsPending = false
  if (target.ssl !== undefined && target.ssl !== false) {
    wire.once('connect', () => (tlsPending = true))
    // Only the handshake may fail as TLS; 'sslconnect' merely says that it begins.
    wire.once('sslconnect', () => wire.stream.once('secureConnect', () => (tlsPending = false)))
  }
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    await client.connect()
    return client
  } catch (error) {
    wire.stream.destroy()
    throw stopped ?? translateConnectError(error, target, mode, tlsPending)
  } finally {
    clearTimeout(timer)
    signal.removeEventListener('abort', onAbort)
  }
}

function clientConfig(target: ConnectionTarget, mode: ConnectionMode, statementTimeoutMs: number): ClientConfig {
  const config: ClientConfig & { replication?: string } = {
    host: target.host,
    port: target.port,
    user: target.user,
    database: databaseOf(target),
    // A function is called only when the server asks for a password.
    password: () => {
      if (target.password !== undefined) return target.password.reveal()
      const facts = {
        user: target.user,
        database: databaseOf(target),
        serverMessage: 'it asks for a password, none is set',
      }
      throw new AuthenticationFailedError(facts)
    },
    ssl: target.ssl ?? false,
    application_name: target.applicationName ?? 'tidemark',
    keepAlive: true,
    keepAliveInitialDelayMillis: keepAliveDelayMs,
    options: `-c statement_timeout=${statementTimeoutMs} -c client_min_messages=notice -c datestyle=ISO`,
  }
  if (mode === 'replication') {
    config.replication = 'true'
    if (config.ssl === false) config.stream = createMessageSocket
    // A slot's connection idles while the backup waits for its checkpoint. Not set for SQL: preflight
    // must be able to log in to servers too old to know the setting, to say that they are too old.
    config.options += ' -c idle_session_timeout=0'
    // We report every 10 s, also while paused; a server-wide timeout below that would cut a busy stream.
    config.options += ' -c wal_sender_timeout=60s'
  }
  return config
}
