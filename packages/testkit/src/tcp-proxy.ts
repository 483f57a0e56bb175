/**
 * A TCP proxy on loopback that breaks connections where a test wants it: after so many bytes, never after so much time.
 *
 * What passes is counted, and a trigger holds the stream at exactly its byte until its action is done: whatever the test does there
 * (kill a server, cut, stall) happens at that point of the conversation on a fast machine as on a slow one.
 */
import { once } from 'node:events'
import { type AddressInfo, type Server, type Socket, connect, createServer } from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import { drained } from './drained.ts'

/** `up`: what the client sends. `down`: what the service answers. */
export type Direction = 'up' | 'down'
/** `reset`: both ends see ECONNRESET. `end`: both ends see an orderly end of stream, in the middle of whatever was said. */
export type CutKind = 'reset' | 'end'

export interface Trigger {
  readonly direction: Direction
  /** Fires once this many bytes have passed since it was set, over all connections it applies to. 0: at the next byte. */
  readonly bytes: number
  /** Only connections whose client has said this, in its first 64 KiB; how a walsender is told from a query. */
  readonly said?: string | undefined
}

/** With a rate set: slices of a hundredth of a second, but no smaller than this. */
const SMALLEST_SLICE = 1024
const REMEMBERED = 65_536

interface Armed extends Trigger {
  left: number
  readonly action: (connection: ProxiedConnection) => unknown
  readonly fired: PromiseWithResolvers<void>
}

export class ProxiedConnection {
  /** The beginning of what the client has said, as latin1. */
  said = ''
  stalled = false
  over = false
  readonly client: Socket
  readonly service: Socket

  /** @internal */
  constructor(client: Socket, service: Socket) {
    this.client = client
    this.service = service
  }

  cut(kind: CutKind): void {
    this.over = true
    for (const socket of [this.client, this.service]) {
      if (kind === 'reset') socket.resetAndDestroy()
      else socket.destroySoon()
    }
  }
}

export class TcpProxy implements AsyncDisposable {
  readonly host = '127.0.0.1'
  readonly port: number
  /** Bytes that have passed, over all connections. */
  readonly passed: Record<Direction, number> = { up: 0, down: 0 }
  readonly #server: Server
  readonly #target: { readonly host: string; readonly port: number }
  readonly #connections = new Set<ProxiedConnection>()
  #armed: Armed[] = []
  #stalled = false
  #refusing = false
  #bytesPerSecond: number | undefined
  #healed = Promise.withResolvers<void>()

  private constructor(server: Server, target: { host: string; port: number }) {
    this.#server = server
    this.#target = target
    this.port = (server.address() as AddressInfo).port
    server.on('connection', (client) => this.#accept(client))
  }

  static async start(target: { readonly host: string; readonly port: number }): Promise<TcpProxy> {
    const server = createServer({ allowHalfOpen: true, noDelay: true })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return new TcpProxy(server, target)
  }

  /** Open connections, those that a trigger may single out included. */
  get connections(): readonly ProxiedConnection[] {
    return [...this.#connections]
  }

  /**
   * Runs `action` at exactly this point of the conversation; nothing more passes in that direction of that connection until it has settled.
   * Resolves once it has. `heal` takes away what has not fired.
   */
  at(trigger: Trigger, action: (connection: ProxiedConnection) => unknown): Promise<void> {
    const armed: Armed = { ...trigger, left: trigger.bytes, action, fired: Promise.withResolvers() }
    armed.fired.promise.catch(() => {})
    this.#armed.unshift(armed)
    return armed.fired.promise
  }

  /** Cuts all connections, or those whose client has said this. */
  cut(kind: CutKind, said?: string): void {
    for (const connection of this.#connections) if (spoke(connection, said)) connection.cut(kind)
  }

  /** Accepts, and lets nothing pass in either direction, until `heal`. With `said`, only connections open now whose client has said this. */
  stall(said?: string): void {
    if (said === undefined) this.#stalled = true
    else for (const connection of this.#connections) if (spoke(connection, said)) connection.stalled = true
  }

  /** New connections are reset as soon as they are made, until `heal`. */
  refuse(): void {
    this.#refusing = true
  }

  /** Each direction of each connection, until `heal`. */
  slowTo(bytesPerSecond: number): void {
    this.#bytesPerSecond = bytesPerSecond
  }

  /** Everything passes again: what was held back too. Connections that were cut stay cut. */
  heal(): void {
    this.#armed = []
    this.#stalled = false
    this.#refusing = false
    this.#bytesPerSecond = undefined
    for (const connection of this.#connections) connection.stalled = false
    this.#healed.resolve()
    this.#healed = Promise.withResolvers()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut('reset')
    this.heal()
    const closed = once(this.#server, 'close')
    this.#server.close()
    await closed
  }

  #accept(client: Socket): void {
    client.on('error', () => {})
    if (this.#refusing) return void client.resetAndDestroy()
    const service = connect({ ...this.#target, allowHalfOpen: true, noDelay: true })
    const connection = new ProxiedConnection(client, service)
    this.#connections.add(connection)
    for (const [socket, other] of [
      [client, service],
      [service, client],
    ] as const) {
      let failed = false
      socket.on('error', () => (failed = true))
      socket.once('close', () => {
        connection.over = true
        // An error on one side is one on the other: a reset must not look like an orderly end.
        if (failed) other.resetAndDestroy()
        else other.destroySoon()
        if (client.destroyed && service.destroyed) this.#connections.delete(connection)
      })
    }
    void this.#pump(connection, 'up', client, service)
    void this.#pump(connection, 'down', service, client)
  }

  async #pump(connection: ProxiedConnection, direction: Direction, from: Socket, to: Socket): Promise<void> {
    try {
      for await (const chunk of from as AsyncIterable<Buffer>) {
        if (direction === 'up' && connection.said.length < REMEMBERED) connection.said += chunk.toString('latin1')
        await this.#pass(connection, direction, chunk, to)
      }
      await this.#whileStalled(connection)
      to.end()
    } catch {
      // The other side has gone, or this one was cut; 'close' takes both away.
    }
  }

  async #pass(connection: ProxiedConnection, direction: Direction, chunk: Buffer, to: Socket): Promise<void> {
    let rest = chunk
    while (rest.length > 0) {
      await this.#whileStalled(connection)
      if (connection.over) return
      const mine = this.#armed.filter((armed) => armed.direction === direction && spoke(connection, armed.said))
      const due = mine.find(({ left }) => left <= 0)
      if (due !== undefined) {
        await this.#fire(due, connection)
        continue
      }
      const rate = this.#bytesPerSecond
      const allowed = Math.min(
        rate === undefined ? rest.length : Math.max(SMALLEST_SLICE, Math.ceil(rate / 100)),
        ...mine.map(({ left }) => left),
      )
      const part = rest.subarray(0, allowed)
      rest = rest.subarray(part.length)
      for (const armed of mine) armed.left -= part.length
      this.passed[direction] += part.length
      if (!to.write(part)) await drained(to)
      if (rate !== undefined) await wait((part.length / rate) * 1000)
    }
  }

  async #fire(armed: Armed, connection: ProxiedConnection): Promise<void> {
    this.#armed = this.#armed.filter((other) => other !== armed)
    try {
      await armed.action(connection)
      armed.fired.resolve()
    } catch (error) {
      armed.fired.reject(error)
    }
  }

  async #whileStalled(connection: ProxiedConnection): Promise<void> {
    while ((this.#stalled || connection.stalled) && !connection.over) await this.#healed.promise
  }
}

function spoke(connection: ProxiedConnection, said: string | undefined): boolean {
  return said === undefined || connection.said.includes(said)
}
