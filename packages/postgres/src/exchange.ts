import { ConnectionLostError } from './errors.ts'
import type { DatabaseError } from 'pg'
import type { ReplicationConnection } from './replication-connection.ts'

/** The server's side of a streaming command, in the order it was sent. */
export type ServerMessage =
  | { readonly kind: 'row'; readonly values: readonly (string | null)[] }
  | { readonly kind: 'complete'; readonly tag: string }
  | { readonly kind: 'copy-start' }
  | { readonly kind: 'copy-data'; readonly chunk: Buffer }
  | { readonly kind: 'copy-done' }
  | { readonly kind: 'error'; readonly error: DatabaseError }
  | { readonly kind: 'ready' }

export interface ExchangeOptions {
  /** Named in errors: 'BASE_BACKUP', … */
  readonly during: string
  /** The server may be silent this long before the first CopyData message. */
  readonly firstDataTimeoutMs: number
  /** …and this long between any two reads after it, while we are willing to read. */
  readonly idleTimeoutMs: number
}

type Queued = ServerMessage | { readonly kind: 'closed' }

/**
 * Runs one streaming replication command and hands its messages, strictly in order, to `onMessage`.
 *
 * Backpressure: while a returned promise is pending the socket is paused. Node delivers nothing
 * after pause(), so at most the messages of the one read already parsed (256 KiB, message-socket.ts;
 * with TLS 64 KiB and one partial message) wait in `#queue`, and the buffers they point into stay
 * untouched until the socket is resumed: a chunk is valid until the promise for it settles.
 *
 * Resolves at ReadyForQuery, after the last handler is done. An ErrorResponse is a message like any
 * other, the handler judges it. Rejects with what the handler throws, or when the connection is
 * lost, silent for too long, or cut by the caller's signal.
 */
export async function exchange(
  connection: ReplicationConnection,
  command: string,
  onMessage: (message: ServerMessage) => void | Promise<void>,
  options: ExchangeOptions,
): Promise<void> {
  await new Exchange(connection, onMessage, options).run(command)
}

class Exchange {
  readonly #connection: ReplicationConnection
  readonly #onMessage: (message: ServerMessage) => void | Promise<void>
  readonly #options: ExchangeOptions
  readonly #settled = Promise.withResolvers<void>()
  readonly #queue: Queued[] = []
  #busy = false
  #over = false
  #dataSeen = false
  #fatal: DatabaseError | undefined
  #socketError: unknown

  constructor(
    connection: ReplicationConnection,
    onMessage: (message: ServerMessage) => void | Promise<void>,
    options: ExchangeOptions,
  ) {
    this.#connection = connection
    this.#onMessage = onMessage
    this.#options = options
  }

  async run(command: string): Promise<void> {
    const { wire } = this.#connection
    const listeners = {
      dataRow: (message: { fields: (string | null)[] }) => this.#take({ kind: 'row', values: message.fields }),
      commandComplete: (message: { text: string }) => this.#take({ kind: 'complete', tag: message.text }),
      copyOutResponse: () => this.#take({ kind: 'copy-start' }),
      replicationStart: () => this.#take({ kind: 'copy-start' }),
      copyData: (message: { chunk: Buffer }) => this.#take({ kind: 'copy-data', chunk: message.chunk }),
      copyDone: () => this.#take({ kind: 'copy-done' }),
      errorMessage: (error: DatabaseError) => this.#take({ kind: 'error', error }),
      readyForQuery: () => this.#take({ kind: 'ready' }),
      error: (error: unknown) => (this.#socketError = error),
      end: () => this.#take({ kind: 'closed' }),
    }
    for (const [event, listener] of Object.entries(listeners)) wire.on(event, listener)
    const watch = this.#watchSilence()
    try {
      if (wire.stream.destroyed) this.#take({ kind: 'closed' })
      else this.#connection.submit(command)
      await this.#settled.promise
    } finally {
      clearInterval(watch)
      for (const [event, listener] of Object.entries(listeners)) wire.off(event, listener)
    }
  }

  #take(message: Queued): void {
    if (this.#over) return
    if (message.kind === 'copy-data') this.#dataSeen = true
    // A cut must not wait behind a busy handler that nobody will ever let go.
    if (message.kind === 'closed' && this.#connection.cutReason !== undefined)
      return this.#fail(this.#connection.cutReason)
    if (this.#busy) this.#queue.push(message)
    else this.#deliver(message)
  }

  #deliver(message: Queued): void {
    if (message.kind === 'closed') return this.#fail(this.#closedError())
    if (message.kind === 'error') this.#fatal = message.error
    try {
      const pending = this.#onMessage(message)
      if (pending !== undefined) this.#wait(pending, message)
      else if (message.kind === 'ready') this.#finish()
    } catch (error) {
      this.#fail(error)
    }
  }

  #wait(pending: Promise<void>, message: ServerMessage): void {
    this.#busy = true
    this.#connection.wire.stream.pause()
    void this.#goOnAfter(pending, message)
  }

  async #goOnAfter(pending: Promise<void>, message: ServerMessage): Promise<void> {
    try {
      await pending
    } catch (error) {
      return this.#fail(error)
    }
    this.#busy = false
    if (message.kind === 'ready') this.#finish()
    while (!this.#busy && !this.#over) {
      const next = this.#queue.shift()
      if (next === undefined) break
      this.#deliver(next)
    }
    if (!this.#busy) this.#connection.wire.stream.resume()
  }

  #closedError(): Error {
    return this.#connection.translate(
      this.#fatal ?? this.#socketError ?? new Error('the socket was closed'),
      this.#options.during,
    )
  }

  #finish(): void {
    this.#over = true
    this.#settled.resolve()
  }

  #fail(error: unknown): void {
    if (this.#over) return
    this.#over = true
    // What was in flight stays unread: the connection cannot be used for anything else.
    const translated = this.#connection.translate(error, this.#options.during)
    this.#connection.cut(translated)
    this.#settled.reject(translated)
  }

  /** One timer instead of one per message: compares the socket's byte counter with the last look. */
  #watchSilence(): NodeJS.Timeout {
    const { firstDataTimeoutMs, idleTimeoutMs, during } = this.#options
    const { stream } = this.#connection.wire
    let lastBytes = stream.bytesRead
    let lastAtMs = performance.now()
    const look = (): void => {
      const nowMs = performance.now()
      if (this.#busy || stream.bytesRead !== lastBytes) {
        lastBytes = stream.bytesRead
        lastAtMs = nowMs
        return
      }
      const limitMs = this.#dataSeen ? idleTimeoutMs : firstDataTimeoutMs
      if (nowMs - lastAtMs < limitMs) return
      const { host, port } = this.#connection.target
      this.#fail(new ConnectionLostError({ host, port, during, reason: `silent for ${limitMs} ms` }))
    }
    return setInterval(look, Math.max(20, Math.min(firstDataTimeoutMs, idleTimeoutMs) / 4))
  }
}
