import { once } from 'node:events'
import { type AddressInfo, type Server, type Socket, connect, createServer } from 'node:net'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { TcpProxy } from './tcp-proxy.ts'
import { until } from './until.ts'

let echo: Server
let proxy: TcpProxy
/** The service's side of each connection. */
let served: Socket[]
beforeEach(async () => {
  served = []
  echo = createServer({ allowHalfOpen: true }, (socket) => {
    served.push(socket)
    socket.on('error', () => {})
    socket.pipe(socket)
  })
  echo.listen(0, '127.0.0.1')
  await once(echo, 'listening')
  proxy = await TcpProxy.start({ host: '127.0.0.1', port: (echo.address() as AddressInfo).port })
})
afterEach(async () => {
  await proxy[Symbol.asyncDispose]()
  echo.close()
})

class Talker {
  heard = ''
  ended = false
  error: string | undefined
  readonly socket: Socket
  constructor() {
    this.socket = connect({ host: proxy.host, port: proxy.port })
    this.socket.on('data', (chunk) => (this.heard += chunk.toString()))
    this.socket.on('end', () => (this.ended = true))
    this.socket.on('error', (error: NodeJS.ErrnoException) => (this.error = error.code))
  }
  say(text: string): void {
    this.socket.write(text)
  }
  async hears(text: string): Promise<void> {
    await until(() => this.heard === text, { what: `'${text}', not '${this.heard}'`, everyMs: 2, timeoutMs: 5000 })
  }
}

test('what is said passes unchanged, and an orderly end passes too', async () => {
  const talker = new Talker()
  talker.say('hello')
  await talker.hears('hello')
  talker.socket.end(' again')
  await until(() => talker.ended)
  expect(talker.heard).toBe('hello again')
  expect(proxy.passed).toEqual({ up: 11, down: 11 })
  await until(() => proxy.connections.length === 0)
})

test.each(['up', 'down'] as const)(
  'a trigger holds the stream %s at exactly its byte until its action is done',
  async (direction) => {
    const { promise, resolve } = Promise.withResolvers<void>()
    const fired = proxy.at({ direction, bytes: 4 }, () => promise)
    const talker = new Talker()
    talker.say('abcdefgh')
    await talker.hears('abcd')
    await until(() => served.length === 1)
    expect(proxy.passed[direction]).toBe(4)
    resolve()
    await fired
    await talker.hears('abcdefgh')
  },
)

test.each([
  ['reset', 'ECONNRESET'],
  ['end', undefined],
] as const)('a cut by %s after so many bytes is seen as one by both ends', async (kind, error) => {
  const fired = proxy.at({ direction: 'down', bytes: 3 }, (connection) => connection.cut(kind))
  const talker = new Talker()
  talker.say('abcdef')
  await fired
  await until(() => talker.socket.destroyed || talker.ended)
  expect(talker.error).toBe(error)
  expect(talker.heard.length).toBeLessThanOrEqual(3)
  await until(() => served.every((socket) => socket.destroyed || socket.readableEnded))
})

test('only connections whose client has said something are meant', async () => {
  const fired = proxy.at({ direction: 'down', bytes: 0, said: 'COPY' }, (connection) => connection.cut('reset'))
  const query = new Talker()
  const copy = new Talker()
  query.say('SELECT')
  await query.hears('SELECT')
  copy.say('COPY')
  await fired
  await until(() => copy.socket.destroyed)
  expect(copy.error).toBe('ECONNRESET')
  query.say('ED')
  await query.hears('SELECTED')
})

test('a stalled proxy accepts and lets nothing pass, and healed it lets everything pass', async () => {
  proxy.stall()
  const talker = new Talker()
  await once(talker.socket, 'connect')
  talker.say('hello')
  await until(() => proxy.connections.length === 1)
  expect(proxy.passed).toEqual({ up: 0, down: 0 })
  proxy.heal()
  await talker.hears('hello')
})

test('a slowed connection loses nothing; a refusing proxy takes no new connections', async () => {
  proxy.slowTo(100_000)
  const talker = new Talker()
  const text = 'x'.repeat(10_000)
  talker.say(text)
  await talker.hears(text)
  proxy.refuse()
  const refused = new Talker()
  await until(() => refused.socket.destroyed)
  expect(refused.error).toBe('ECONNRESET')
  proxy.heal()
  talker.say('!')
  await talker.hears(`${text}!`)
})
