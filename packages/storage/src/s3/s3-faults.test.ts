/** What the S3 driver does when the store or the network misbehaves: scripted answers over real sockets. */
import { hash } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { promisify } from 'node:util'
import { AbortedError, MiB, Redacted } from '@tidemark/kernel'
import { afterEach, beforeEach, expect, test } from 'vitest'
import {
  ChecksumRefusedError,
  ObjectNotFoundError,
  StoreAccessDeniedError,
  StoreFullError,
  StoreMissingError,
  StoreUnavailableError,
} from '../errors.ts'
import { collect } from '../testing/collect.ts'
import { ManualClock } from '../testing/manual-clock.ts'
import { S3ObjectStore, type S3ObjectStoreOptions } from './s3-object-store.ts'

interface Request {
  readonly method: string
  readonly url: string
  readonly headers: IncomingMessage['headers']
  readonly body: Buffer
}
type Answer = (request: Request, response: ServerResponse) => void

const signal = new AbortController().signal
const bytes = Buffer.from('what we want to store')

let server: ReturnType<typeof createServer>
let requests: Request[]
/** Answers in the order of requests; the last one stays. */
let script: Answer[]
let store: S3ObjectStore

beforeEach(async () => {
  requests = []
  script = []
  server = createServer((message, response) => {
    const chunks: Buffer[] = []
    message.on('data', (chunk: Buffer) => chunks.push(chunk))
    message.on('error', () => {})
    message.on('end', () => {
      const { method = '', url = '', headers } = message
      const request = { method, url, headers, body: Buffer.concat(chunks) }
      requests.push(request)
      const answer = script.length > 1 ? script.shift() : script[0]
      answer?.(request, response)
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  store = await openStore()
})

afterEach(async () => {
  await store[Symbol.asyncDispose]()
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
})

function openStore(options: Partial<S3ObjectStoreOptions> = {}): Promise<S3ObjectStore> {
  return S3ObjectStore.open({
    bucket: 'bucket',
    prefix: 'p',
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    credentials: { accessKeyId: 'key', secretAccessKey: new Redacted('secret') },
    ...options,
    retry: { attempts: 3, baseMs: 1, capMs: 5, ...options.retry },
  })
}

const ok: Answer = (_request, response) => void response.writeHead(200).end()
const notFound: Answer = (_request, response) => void response.writeHead(404).end()
const fail =
  (status: number, code: string, headers: Record<string, string> = {}): Answer =>
  (_request, response) =>
    void response
      .writeHead(status, { 'content-type': 'application/xml', ...headers })
      .end(`<?xml version="1.0"?><Error><Code>${code}</Code><Message>scripted</Message></Error>`)
const reset: Answer = (_request, response) => void response.socket?.resetAndDestroy()
const hang: Answer = () => {}
const send =
  (body: Buffer, announced = body.length): Answer =>
  (_request, response) => {
    response.writeHead(200, { 'content-length': announced })
    response.write(body)
    if (announced === body.length) response.end()
    else setImmediate(() => response.socket?.destroy())
  }
const methods = (): string[] => requests.map(({ method }) => method)

test.each([
  ['500', fail(500, 'InternalError')],
  ['502 with a body that is no XML', ((_q, r) => void r.writeHead(502).end('<html>Bad gateway')) satisfies Answer],
  ['503', fail(503, 'ServiceUnavailable')],
  ['503 SlowDown', fail(503, 'SlowDown')],
  ['409 conflict', fail(409, 'ConditionalRequestConflict')],
  ['400 RequestTimeout', fail(400, 'RequestTimeout')],
  ['a reset connection', reset],
])('%s is tried again until it works', async (_title, answer) => {
  script = [answer, answer, ok]
  await store.put('a', bytes, { signal })
  expect(requests).toHaveLength(3)
  expect(requests[2]?.body).toEqual(bytes)
  expect(requests[2]?.url).toContain('/bucket/p/a')
})

const withDate =
  (date: string): Answer =>
  (_request, response) => {
    response.sendDate = false
    response.writeHead(200, date === '' ? {} : { date }).end()
  }

test("the store's time is its Date header, and an answer without one is tried again", async () => {
  script = [withDate(''), withDate('soon'), withDate('Thu, 01 Jan 2026 00:00:07 GMT')]
  await expect(store.storeTime(signal)).resolves.toEqual(new Date('2026-01-01T00:00:07Z'))
  expect(methods()).toEqual(['HEAD', 'HEAD', 'HEAD'])
})

test('a store that stays unavailable is given up after the attempts allowed', async () => {
  script = [fail(503, 'SlowDown')]
  await expect(store.put('a', bytes, { signal })).rejects.toThrow(StoreUnavailableError)
  expect(requests).toHaveLength(3)
})

test.each([
  [403, 'AccessDenied', StoreAccessDeniedError],
  [403, 'InvalidAccessKeyId', StoreAccessDeniedError],
  [403, 'SignatureDoesNotMatch', StoreAccessDeniedError],
  [403, 'RequestTimeTooSkewed', StoreAccessDeniedError],
  [400, 'ExpiredToken', StoreAccessDeniedError],
  [301, 'PermanentRedirect', StoreAccessDeniedError],
  [404, 'NoSuchBucket', StoreMissingError],
  [507, 'InsufficientStorage', StoreFullError],
  [403, 'QuotaExceeded', StoreFullError],
  [400, 'BadDigest', ChecksumRefusedError],
  [400, 'XAmzContentSHA256Mismatch', ChecksumRefusedError],
])('%i %s is translated and not tried again', async (status, code, kind) => {
  script = [fail(status, code)]
  await expect(store.put('a', bytes, { signal })).rejects.toThrow(kind)
  expect(requests).toHaveLength(1)
})

test('an answer that nobody knows passes as it came: it is a bug, not weather', async () => {
  script = [fail(400, 'InvalidArgument')]
  await expect(store.put('a', bytes, { signal })).rejects.toMatchObject({ name: 'InvalidArgument' })
  expect(requests).toHaveLength(1)
})

test('the payload hash is the one handed in, signed and not made again', async () => {
  script = [ok]
  const sha256 = hash('sha256', 'other bytes, to see that nobody hashes these')
  await store.put('a', bytes, { signal, sha256 })
  const { headers } = requests[0]!
  expect(headers['x-amz-content-sha256']).toBe(sha256)
  expect(headers['x-amz-checksum-sha256']).toBe(Buffer.from(sha256, 'hex').toString('base64'))
  expect(headers['x-amz-checksum-crc32']).toBeUndefined()
  expect(headers['content-length']).toBe(String(bytes.length))
  expect(headers.authorization).toContain('x-amz-content-sha256')
})

test('a taken name is "exists", at the first sight', async () => {
  script = [notFound, ok, fail(412, 'PreconditionFailed')]
  expect(await store.putIfAbsent('a', bytes, { signal })).toBe('exists')
  expect(methods()).toEqual(['HEAD', 'HEAD', 'PUT'])
  expect(requests[2]?.headers['if-none-match']).toBe('*')
})

test('our own bytes found after a lost answer count as stored', async () => {
  script = [notFound, ok, reset, fail(412, 'PreconditionFailed'), send(bytes)]
  expect(await store.putIfAbsent('a', bytes, { signal })).toBe('stored')
  expect(methods()).toEqual(['HEAD', 'HEAD', 'PUT', 'PUT', 'GET'])
})

test("somebody else's bytes found after a lost answer do not", async () => {
  script = [notFound, ok, reset, fail(412, 'PreconditionFailed'), send(Buffer.from('of another writer'))]
  expect(await store.putIfAbsent('a', bytes, { signal })).toBe('exists')
})

test('a conditional put is tried again on 409, and what then counts is the answer', async () => {
  script = [notFound, ok, fail(409, 'ConditionalRequestConflict'), ok]
  expect(await store.putIfAbsent('a', bytes, { signal })).toBe('stored')
  expect(methods()).toEqual(['HEAD', 'HEAD', 'PUT', 'PUT'])
})

test('a store without conditional put is looked at first, and then put plainly', async () => {
  script = [notFound, ok, fail(501, 'NotImplemented'), ok]
  expect(await store.putIfAbsent('a', bytes, { signal })).toBe('stored')
  expect(requests.at(-1)?.headers['if-none-match']).toBeUndefined()
  script = [(_request, response) => void response.writeHead(200, { 'last-modified': new Date(0).toUTCString() }).end()]
  expect(await store.putIfAbsent('a', bytes, { signal })).toBe('exists')
})

test('a truncated body is never a short result', async () => {
  script = [send(bytes.subarray(0, 5), bytes.length), send(bytes)]
  expect(await store.get('a', { signal })).toEqual(bytes)
  requests = []
  script = [send(bytes.subarray(0, 5), bytes.length)]
  await expect(store.get('a', { signal })).rejects.toThrow(StoreUnavailableError)
  expect(requests).toHaveLength(3)
})

test('a range that the store cut differently than asked is refused', async () => {
  script = [
    (_request, response) =>
      void response.writeHead(206, { 'content-range': 'bytes 0-4/100', 'content-length': 5 }).end('01234'),
  ]
  const range = { offset: 10, length: 5 }
  await expect(store.get('a', { signal, range })).rejects.toThrow(StoreUnavailableError)
})

test('404 tells object and bucket apart, for get by the code and for stat by a second look', async () => {
  script = [fail(404, 'NoSuchKey')]
  await expect(store.get('a', { signal })).rejects.toThrow(ObjectNotFoundError)
  script = [fail(404, 'NoSuchBucket')]
  await expect(store.get('a', { signal })).rejects.toThrow(StoreMissingError)
  script = [notFound, ok]
  expect(await store.stat('a', signal)).toBeUndefined()
  script = [notFound]
  await expect(store.stat('a', signal)).rejects.toThrow(StoreMissingError)
})

test('an object that could not be deleted is named', async () => {
  script = [
    (_request, response) =>
      void response
        .writeHead(200, { 'content-type': 'application/xml' })
        .end('<DeleteResult><Error><Key>p/b</Key><Code>AccessDenied</Code></Error></DeleteResult>'),
  ]
  await expect(store.delete(['a', 'b'], signal)).rejects.toMatchObject({
    code: 'STORE_ACCESS_DENIED',
    facts: { name: 'b' },
  })
  expect(requests[0]?.headers['content-md5']).toBe(hash('md5', requests[0]?.body ?? '', 'base64'))
})

test('a delete is one request: what came to be under the name since is not hit by a second one', async () => {
  for (const answer of [fail(503, 'SlowDown'), fail(500, 'InternalError'), reset]) {
    requests = []
    script = [answer, ok]
    await using store = await openStore()
    await expect(store.delete(['a', 'b'], signal)).rejects.toThrow(StoreUnavailableError)
    expect(requests).toHaveLength(1)
  }
})

test('an object whose time the store does not say is an error, and never one of 1970', async () => {
  script = [(_request, response) => void response.writeHead(200, { 'content-length': '3' }).end()]
  await expect(store.stat('a', signal)).rejects.toThrow(StoreUnavailableError)
  script = [
    (_request, response) =>
      void response
        .writeHead(200, { 'content-type': 'application/xml' })
        .end('<ListBucketResult><Contents><Key>p/a</Key><Size>3</Size></Contents></ListBucketResult>'),
  ]
  await expect(collect(store.list('', { signal }))).rejects.toMatchObject({ facts: { name: 'a' } })
})

test('an answer that comes before the body was read ends the request, and gives its connection up', async () => {
  const hasty = createServer((_message, response) => fail(503, 'SlowDown')({} as Request, response))
  hasty.listen(0, '127.0.0.1')
  await once(hasty, 'listening')
  const endpoint = `http://127.0.0.1:${(hasty.address() as AddressInfo).port}`
  await using store = await openStore({ endpoint, retry: { attempts: 2 } })
  try {
    await expect(store.put('a', Buffer.alloc(32 * MiB), { signal })).rejects.toThrow(StoreUnavailableError)
    const connections = (): Promise<number> => promisify(hasty.getConnections.bind(hasty))()
    await expect.poll(connections, { timeout: 5000 }).toBe(0)
  } finally {
    hasty.closeAllConnections()
    hasty.close()
  }
})

test('a request that hangs ends at its deadline and is tried again', async () => {
  const clock = new ManualClock()
  await using store = await openStore({ clock, timing: { requestMs: 7000 } })
  script = [hang, ok]
  const put = store.put('a', bytes, { signal })
  await expect.poll(() => requests.length).toBe(1)
  expect(clock.sleepingMs[0]).toBeGreaterThanOrEqual(7000)
  clock.advance(8000)
  await expect.poll(() => clock.sleepingMs.length).toBeGreaterThan(0)
  clock.advance(10) // the back-off
  await put
  expect(requests).toHaveLength(2)
  expect(clock.sleepingMs).toEqual([])
})

test('a body that stops arriving ends at its deadline', async () => {
  const clock = new ManualClock()
  await using store = await openStore({ clock, retry: { attempts: 1 } })
  script = [(_request, response) => void response.writeHead(200, { 'content-length': 100 }).write('some')]
  const settled = store.get('a', { signal }).then(
    () => 'read',
    (error: unknown) => error,
  )
  await expect.poll(() => requests.length).toBe(1)
  let outcome: unknown
  void settled.then((value) => (outcome = value))
  await expect.poll(() => (clock.advance(31_000), outcome)).toBeInstanceOf(StoreUnavailableError)
})

test('when the store asks for quiet, all callers keep it', async () => {
  const clock = new ManualClock()
  await using store = await openStore({ clock })
  script = [fail(503, 'SlowDown', { 'retry-after': '7' }), ok]
  const first = store.put('a', bytes, { signal })
  await expect.poll(() => clock.sleepingMs.some((ms) => ms >= 7000 && ms < 7010)).toBe(true)
  const second = store.put('b', bytes, { signal })
  await expect.poll(() => clock.sleepingMs.filter((ms) => ms < 7010)).toHaveLength(2)
  expect(requests).toHaveLength(1)
  clock.advance(7100)
  await Promise.all([first, second])
  expect(requests).toHaveLength(3)
})

test('an abort ends a hanging call and a waiting one at once', async () => {
  for (const answer of [hang, fail(503, 'SlowDown', { 'retry-after': '60' })]) {
    requests = []
    script = [answer]
    await using store = await openStore()
    const controller = new AbortController()
    const calls = [
      store.put('a', bytes, { signal: controller.signal }),
      store.get('a', { signal: controller.signal }),
      collect(store.list('', { signal: controller.signal })),
      ...(answer === hang ? [store.delete(['a'], controller.signal)] : []), // never waits to be repeated
    ].map((call) => expect(call).rejects.toThrow(AbortedError))
    await expect.poll(() => requests.length).toBeGreaterThan(0)
    controller.abort()
    await Promise.all(calls)
  }
})

test('a store that checks only Content-MD5 gets it with every put', async () => {
  script = [
    (request, response) => {
      const md5 = request.headers['content-md5']
      if (request.method === 'HEAD') return response.writeHead(404).end()
      if (md5 !== undefined && md5 !== hash('md5', request.body, 'base64'))
        return fail(400, 'BadDigest')(request, response)
      return response.writeHead(request.method === 'DELETE' ? 204 : 200).end()
    },
  ]
  expect(await store.probe(signal)).toEqual({ conditionalPut: false, checksumAtIngest: true })
  expect(methods().filter((method) => method === 'DELETE')).toHaveLength(3)
  await store.put('a', bytes, { signal })
  expect(requests.at(-1)?.headers['content-md5']).toBe(hash('md5', bytes, 'base64'))
})

test('a store that checks nothing is found out', async () => {
  script = [(request, response) => void response.writeHead(request.method === 'DELETE' ? 204 : 200).end()]
  expect(await store.probe(signal)).toEqual({ conditionalPut: false, checksumAtIngest: false })
})

const stored: Answer = (_request, response) => void response.writeHead(200, { etag: '"1"' }).end()
const taken: Answer = (_request, response) => void response.writeHead(412).end()

test('a probe that is stopped takes away what it wrote, and what it may have written', async () => {
  const stop = new AbortController()
  script = [stored, taken, () => stop.abort(), ok]
  await expect(store.probe(stop.signal)).rejects.toThrow(AbortedError)
  expect(pathsOf('PUT').size).toBe(2)
  expect(pathsOf('DELETE')).toEqual(pathsOf('PUT'))
})

function pathsOf(wanted: string): Set<string> {
  return new Set(requests.filter(({ method }) => method === wanted).map(({ url }) => url.split('?')[0] ?? ''))
}
