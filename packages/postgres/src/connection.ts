import { OperationalError, abortError } from '@tidemark/kernel'
import { DatabaseError, type Client, type QueryResultRow } from 'pg'
import type { ConnectionTarget } from './connection-target.ts'
import { ConnectionLostError } from './errors.ts'
import { openClient } from './open-client.ts'
import { nodeErrorCode, translateServerError, type ConnectionMode } from './translate-error.ts'
import { wireOf } from './wire.ts'

/** A statement may run this long on the server. */
const defaultStatementTimeoutMs = 30_000
/** Beyond the server's own limit: then the server or the network is gone. */
const silenceGraceMs = 5_000
/** How long a polite goodbye may take before the socket is cut. */
const closeTimeoutMs = 2_000

/** What ordinary and replication connections share: deadlines, abort, translation, disposal. */
export abstract class ClientSession implements AsyncDisposable {
  readonly target: ConnectionTarget
  protected readonly client: Client
  readonly #mode: ConnectionMode
  readonly #signal: AbortSignal
  readonly #onAbort: () => void
  #cutBecause: Error | undefined

  protected constructor(client: Client, target: ConnectionTarget, mode: ConnectionMode, signal: AbortSignal) {
    this.client = client
    this.target = target
    this.#mode = mode
    this.#signal = signal
    this.#onAbort = () => this.cut(abortError(signal, 'work on PostgreSQL'))
    signal.addEventListener('abort', this.#onAbort, { once: true })
    if (signal.aborted) this.#onAbort()
  }

  /** Destroys the socket at once; everything waiting for an answer rejects with `reason`. */
  cut(reason: Error): void {
    this.#cutBecause ??= reason
    wireOf(this.client).stream.destroy()
  }

  /** Why `cut` was called, if it was. */
  get cutReason(): Error | undefined {
    return this.#cutBecause
  }

  /** Any failure of a running command as one of our errors; what is not PostgreSQL's passes unchanged. */
  translate(error: unknown, during: string): Error {
    if (this.#cutBecause !== undefined) return this.#cutBecause
    if (error instanceof OperationalError) return error
    if (error instanceof DatabaseError) return translateServerError(error, this.target, this.#mode, 'command')
    const { host, port } = this.target
    const stream = wireOf(this.client).stream
    const code = nodeErrorCode(error)
    if (code !== undefined || stream.destroyed || stream.readableEnded) {
      return new ConnectionLostError({ host, port, during, reason: code ?? 'closed by the server' }, error)
    }
    return error instanceof Error ? error : new Error(String(error))
  }

  protected async withDeadline<T>(work: Promise<T>, timeoutMs: number, during: string): Promise<T> {
    const { host, port } = this.target
    const timer = setTimeout(() => {
      this.cut(new ConnectionLostError({ host, port, during, reason: `no answer within ${timeoutMs} ms` }))
    }, timeoutMs)
    try {
      return await work
    } catch (error) {
      throw this.translate(error, during)
    } finally {
      clearTimeout(timer)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#signal.removeEventListener('abort', this.#onAbort)
    const stream = wireOf(this.client).stream
    if (stream.destroyed) return
    const closed = new Promise<void>((resolve) => stream.once('close', () => resolve()))
    const timer = setTimeout(() => stream.destroy(), closeTimeoutMs)
    // end() rejects or never settles on a broken socket; 'close' always comes, at the latest by the timer.
    this.client.end(() => {})
    // A socket paused by backpressure would never see the server's FIN.
    stream.resume()
    await closed
    clearTimeout(timer)
  }
}

/** An ordinary SQL connection. */
export class SqlConnection extends ClientSession {
  constructor(client: Client, target: ConnectionTarget, signal: AbortSignal) {
    super(client, target, 'sql', signal)
  }

  /** @throws {ConnectionLostError} also when the server stays silent past its own statement_timeout. */
  async query<Row extends QueryResultRow>(sql: string, values: readonly unknown[] = []): Promise<Row[]> {
    const work = this.client.query<Row>(sql, [...values])
    const result = await this.withDeadline(work, defaultStatementTimeoutMs + silenceGraceMs, 'a query')
    return result.rows
  }
}

/**
 * Logs in for SQL. `signal` is bound for the connection's whole life: when it fires the socket is
 * destroyed and whatever waits rejects.
 *
 * @throws {DatabaseUnreachableError} see openClient for the others.
 */
export async function connect(target: ConnectionTarget, signal: AbortSignal): Promise<SqlConnection> {
  return new SqlConnection(await openClient(target, 'sql', defaultStatementTimeoutMs, signal), target, signal)
}
