/**
 * An S3 server that misbehaves on request: a proxy in front of a real one, with rules by method, path and ordinal.
 *
 * Requests pass as they were signed, so what the real server checks it still checks. A rule applies to whole requests, never to a moment
 * in time: the same rules and the same client give the same faults.
 */
import { once } from 'node:events'
import { type IncomingMessage, type Server, type ServerResponse, createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import { PutObjectCommand, S3Client } from '@aws-sdk/client-s3'
import { drained } from './drained.ts'
import type { S3Settings } from './s3.ts'

export type S3Fault =
  /** Answered here; the store never sees it. */
  | { readonly kind: 'status'; readonly status: number; readonly code: string }
  /** Never answered, until the client gives up or `heal`. The store never sees it. */
  | { readonly kind: 'hang' }
  /** The connection is reset before the store sees anything. */
  | { readonly kind: 'reset' }
  /** The store does it; the connection is reset in place of the answer. */
  | { readonly kind: 'lose-answer' }
  /** The body of the answer ends after so many bytes, by a reset. */
  | { readonly kind: 'truncate'; readonly bytes: number }
  /** One bit of the answer's body is another, `byte` modulo its length. */
  | { readonly kind: 'flip'; readonly byte: number }
  /** The body of the answer comes at this rate. */
  | { readonly kind: 'slow'; readonly bytesPerSecond: number }
  /** In an answered listing, every object is so much older than it is. */
  | { readonly kind: 'age'; readonly ms: number }
  /** `If-None-Match` is ignored: what was there is overwritten. */
  | { readonly kind: 'overwrite' }
  /** 412 becomes 200: the client believes that it has stored what it has not. */
  | { readonly kind: 'lie-stored' }
  /** Runs, and only then the request passes. */
  | { readonly kind: 'act'; readonly action: () => unknown }

export interface S3Rule {
  readonly fault: S3Fault
  /** Default: any. */
  readonly method?: 'GET' | 'PUT' | 'HEAD' | 'POST' | 'DELETE'
  /** Matched with path and query as they stand in the request line. Default: any. */
  readonly path?: RegExp
  /** Let this many matching requests pass before. Default 0. */
  readonly skip?: number
  /** How many then get the fault. Default 1; Infinity: all, until `heal`. */
  readonly times?: number
}

export interface SeenRequest {
  readonly method: string
  readonly path: string
  /** Of the fault it got, if any. */
  readonly fault?: S3Fault['kind']
}

interface ActiveRule {
  readonly rule: S3Rule
  skip: number
  left: number
}

export class S3FaultProxy implements S3Settings, AsyncDisposable {
  readonly endpoint: string
  readonly httpsEndpoint = undefined
  readonly caFile = undefined
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly region: string
  /** In the order they came. */
  readonly seen: SeenRequest[] = []
  readonly #server: Server
  readonly #behind: URL
  readonly #client: S3Client
  #rules: ActiveRule[] = []
  readonly #hanging = new Set<ServerResponse>()

  private constructor(server: Server, store: S3Settings) {
    this.#server = server
    this.#behind = new URL(store.endpoint)
    this.endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    const { accessKeyId, secretAccessKey, region } = store
    this.accessKeyId = accessKeyId
    this.secretAccessKey = secretAccessKey
    this.region = region
    const { endpoint } = store
    this.#client = new S3Client({
      endpoint,
      region,
      forcePathStyle: true,
      credentials: { accessKeyId, secretAccessKey },
    })
    server.on('request', (asked, answer) => void this.#serve(asked, answer))
  }

  /** @param store reached over plain http. */
  static async start(store: S3Settings): Promise<S3FaultProxy> {
    const server = createServer({ requestTimeout: 0, headersTimeout: 0, keepAliveTimeout: 60_000 })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return new S3FaultProxy(server, store)
  }

  /** Rules are asked in the order they were added; the first that applies counts. */
  add(...rules: readonly S3Rule[]): void {
    this.#rules.push(...rules.map((rule) => ({ rule, skip: rule.skip ?? 0, left: rule.times ?? 1 })))
  }

  /** No rule is left; requests that hang are cut. */
  heal(): void {
    this.#rules = []
    for (const answer of this.#hanging) answer.socket?.resetAndDestroy()
    this.#hanging.clear()
  }

  /** How many requests got a fault, of this kind or any. */
  faults(kind?: S3Fault['kind']): number {
    return this.seen.filter(({ fault }) => fault !== undefined && (kind === undefined || fault === kind)).length
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.heal()
    this.#client.destroy()
    const closed = once(this.#server, 'close')
    this.#server.close()
    this.#server.closeAllConnections()
    await closed
  }

  #faultFor(method: string, path: string): S3Fault | undefined {
    for (const active of this.#rules) {
      const { rule } = active
      if (rule.method !== undefined && rule.method !== method) continue
      if (rule.path !== undefined && !rule.path.test(path)) continue
      if (active.skip > 0) {
        active.skip -= 1
        continue
      }
      if (active.left <= 0) continue
      active.left -= 1
      return rule.fault
    }
    return undefined
  }

  async #serve(asked: IncomingMessage, answer: ServerResponse): Promise<void> {
    const { method = '', url: path = '' } = asked
    asked.on('error', () => {})
    answer.on('error', () => {})
    const fault = this.#faultFor(method, path)
    this.seen.push({ method, path, ...(fault === undefined ? {} : { fault: fault.kind }) })
    try {
      switch (fault?.kind) {
        case 'status':
          return await this.#refuse(asked, answer, fault.status, fault.code)
        case 'hang':
          this.#hanging.add(answer)
          answer.once('close', () => this.#hanging.delete(answer))
          return void asked.resume()
        case 'reset':
          return void asked.socket.resetAndDestroy()
        case 'overwrite':
          return await this.#overwrite(asked, answer)
        case 'act':
          await fault.action()
          return await this.#forward(asked, answer, undefined)
        case 'lose-answer':
        case 'truncate':
        case 'flip':
        case 'slow':
        case 'age':
        case 'lie-stored':
        case undefined:
          return await this.#forward(asked, answer, fault)
        default:
          return fault satisfies never
      }
    } catch {
      // Either side has gone; the other one learns it by a reset.
      asked.socket.resetAndDestroy()
    }
  }

  /** The body is read first: a client that is answered in mid-upload may see a reset in place of the answer. */
  async #refuse(asked: IncomingMessage, answer: ServerResponse, status: number, code: string): Promise<void> {
    await bodyOf(asked)
    answer.writeHead(status, { 'content-type': 'application/xml' })
    answer.end(`<?xml version="1.0"?><Error><Code>${code}</Code><Message>as the test wants it</Message></Error>`)
  }

  /** Signed anew: the header that is to be ignored is part of the client's signature. */
  async #overwrite(asked: IncomingMessage, answer: ServerResponse): Promise<void> {
    const Body = await bodyOf(asked)
    const [bucket = '', ...key] = (asked.url ?? '').split('?')[0]!.slice(1).split('/').map(decodeURIComponent)
    const { ETag } = await this.#client.send(new PutObjectCommand({ Bucket: bucket, Key: key.join('/'), Body }))
    answer.writeHead(200, { 'content-length': 0, ...(ETag === undefined ? {} : { etag: ETag }) }).end()
  }

  async #forward(asked: IncomingMessage, answer: ServerResponse, fault: S3Fault | undefined): Promise<void> {
    const { method, url: path, rawHeaders } = asked
    const { hostname, port } = this.#behind
    const headers = rawHeaders.filter((_, i) => !/^(expect|connection|keep-alive)$/i.test(rawHeaders[i & ~1] ?? ''))
    const behind = request({ host: hostname, port, method, path, headers, setHost: false, agent: false })
    answer.once('close', () => behind.destroy())
    asked.pipe(behind)
    const [reply] = (await once(behind, 'response')) as [IncomingMessage]
    if (fault?.kind === 'lose-answer') {
      await bodyOf(reply)
      return void asked.socket.resetAndDestroy()
    }
    if (fault?.kind === 'lie-stored' && reply.statusCode === 412) {
      await bodyOf(reply)
      return void answer.writeHead(200, { 'content-length': 0 }).end()
    }
    answer.writeHead(reply.statusCode ?? 502, endToEnd(reply.rawHeaders))
    if (fault?.kind === 'age') return void answer.end(aged(await bodyOf(reply), fault.ms))
    let sent = 0
    const length = Number(reply.headers['content-length'] ?? 0)
    for await (const chunk of reply as AsyncIterable<Buffer>) {
      if (fault?.kind === 'flip') flipIn(chunk, (fault.byte % Math.max(1, length)) - sent)
      if (fault?.kind === 'truncate' && sent + chunk.length >= fault.bytes) {
        answer.write(chunk.subarray(0, Math.max(0, fault.bytes - sent)), () => asked.socket.resetAndDestroy())
        return
      }
      sent += chunk.length
      if (!answer.write(chunk)) await drained(answer)
      if (fault?.kind === 'slow') await wait((chunk.length / fault.bytesPerSecond) * 1000)
    }
    answer.end()
  }
}

function flipIn(chunk: Buffer, at: number): void {
  if (at >= 0 && at < chunk.length) chunk[at] = chunk[at]! ^ 1
}

/** The length stays: RFC 3339 with milliseconds, as the server wrote it. */
function aged(listing: Buffer, ms: number): string {
  return listing
    .toString()
    .replaceAll(
      /<LastModified>([^<]+)/g,
      (_, at: string) => `<LastModified>${new Date(new Date(at).getTime() - ms).toISOString()}`,
    )
}

async function bodyOf(message: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of message as AsyncIterable<Buffer>) chunks.push(chunk)
  return Buffer.concat(chunks)
}

/** As name, value, name, value. */
function endToEnd(raw: readonly string[]): string[] {
  return raw.filter((_, i) => !/^(connection|keep-alive)$/i.test(raw[i & ~1] ?? ''))
}
