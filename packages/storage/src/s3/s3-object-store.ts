/**
 * Objects in a bucket, below a prefix.
 *
 * Puts are single requests of known length whose SHA-256 is part of the signature; there is no multipart
 * upload, because a conditional put is not enforced on its completion. Whether `If-None-Match` is obeyed
 * at all differs between stores and even buckets (versioned ones on RGW ignore it), so it counts only
 * after `probe` has seen it; until then, and where it is ignored, `putIfAbsent` looks first.
 */
import { hash } from 'node:crypto'
import type { Readable } from 'node:stream'
import {
  DeleteObjectCommand,
  DeleteObjectsCommand,
  GetObjectCommand,
  HeadBucketCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  type ListObjectsV2CommandOutput,
  type S3Client,
} from '@aws-sdk/client-s3'
import { silentLogger, systemClock, type Clock, type Logger } from '@tidemark/kernel'
import { withDeadline } from '../deadline.ts'
import { ObjectNotFoundError, ObjectTooLargeError, StoreMissingError, StoreUnavailableError } from '../errors.ts'
import { checkFolder, checkObjectName, checkPrefix, isObjectName } from '../object-name.ts'
import type {
  GetOptions,
  ListOptions,
  ObjectEntry,
  ObjectName,
  ObjectStore,
  PutOptions,
  StoreCapabilities,
} from '../object-store.ts'
import { bodyStream } from './body-stream.ts'
import { bufferFor, getBound } from '../object-store.ts'
import { DEFAULT_RETRY, Retry } from '../retry.ts'
import { probeS3 } from './probe-s3.ts'
import { readBody } from './read-body.ts'
import { withBodyMd5, withHeaders, withResponseHeaders } from './request-headers.ts'
import { DEFAULT_TIMING, createS3Client, type S3Options, type S3Timing } from './s3-client.ts'
import { statusOf, translateS3Error, type S3Failure } from './translate-s3-error.ts'

export interface S3ObjectStoreOptions extends S3Options {
  readonly bucket: string
  /** Without '/' at either end; '' for the bucket's root. */
  readonly prefix: string
  readonly clock?: Clock
  readonly logger?: Logger
}

/** How one put request ended, where it was not an error. */
export type PutAnswer = { readonly outcome: 'stored' | 'taken' | 'unsupported'; readonly versionId?: string }

const PAGE = 1000

export class S3ObjectStore implements ObjectStore {
  readonly url: string
  readonly #client: S3Client
  readonly #bucket: string
  readonly #keyPrefix: string
  readonly #clock: Clock
  readonly #timing: S3Timing
  readonly #retry: Retry
  #conditionalPut: 'unknown' | 'enforced' | 'ignored' | 'unsupported' = 'unknown'
  #contentMd5 = false

  private constructor(client: S3Client, options: S3ObjectStoreOptions, timing: S3Timing) {
    this.url = `s3://${options.bucket}${options.prefix === '' ? '' : `/${options.prefix}`}`
    this.#client = client
    this.#bucket = options.bucket
    this.#keyPrefix = options.prefix === '' ? '' : `${options.prefix}/`
    this.#clock = options.clock ?? systemClock
    this.#timing = timing
    this.#retry = new Retry({
      clock: this.#clock,
      logger: (options.logger ?? silentLogger).child({ store: this.url }),
      policy: { ...DEFAULT_RETRY, ...options.retry },
    })
  }

  /** Makes no request yet: `probe` finds out whether bucket and credentials are right. */
  static async open(options: S3ObjectStoreOptions): Promise<S3ObjectStore> {
    const timing = { ...DEFAULT_TIMING, ...options.timing }
    return new S3ObjectStore(await createS3Client(options, timing), options, timing)
  }

  async put(name: ObjectName, bytes: Uint8Array, options: PutOptions): Promise<void> {
    checkObjectName(name)
    const sha256 = options.sha256 ?? hash('sha256', bytes)
    const what = `writing ${name}`
    await this.#retry.run(what, options.signal, () => this.#putOnce(name, bytes, sha256, false, options.signal))
  }

  async putIfAbsent(name: ObjectName, bytes: Uint8Array, options: PutOptions): Promise<'stored' | 'exists'> {
    checkObjectName(name)
    const { signal } = options
    const sha256 = options.sha256 ?? hash('sha256', bytes)
    if (this.#conditionalPut !== 'enforced' && (await this.stat(name, signal)) !== undefined) return 'exists'
    // Once an attempt has ended without an answer, what we find under the name may be our own.
    let maybeOurs = false
    return this.#retry.run(`writing ${name}`, signal, async () => {
      try {
        const answer = await this.#putOnce(name, bytes, sha256, this.#conditionalPut !== 'unsupported', signal)
        if (answer.outcome === 'unsupported') {
          this.#conditionalPut = 'unsupported'
          await this.#putOnce(name, bytes, sha256, false, signal)
          return 'stored'
        }
        if (answer.outcome === 'stored') return 'stored'
        if (!maybeOurs) return 'exists'
        const found = await this.#getOnce(name, { signal })
        return found.equals(bytes) ? 'stored' : 'exists'
      } catch (error) {
        if (error instanceof StoreUnavailableError) maybeOurs = true
        throw error
      }
    })
  }

  async get(name: ObjectName, options: GetOptions): Promise<Buffer> {
    checkObjectName(name)
    if (options.range?.length === 0) {
      const found = await this.stat(name, options.signal)
      if (found === undefined) throw new ObjectNotFoundError(name, this.url)
      return Buffer.alloc(0)
    }
    return this.#retry.run(`reading ${name}`, options.signal, () => this.#getOnce(name, options))
  }

  async stat(name: ObjectName, signal: AbortSignal): Promise<ObjectEntry | undefined> {
    checkObjectName(name)
    const what = `looking for ${name}`
    const found = await this.#retry.run(what, signal, async () => {
      const answer = await this.#attempt(what, name, 0, signal, async (abortSignal) => {
        try {
          return await this.#client.send(new HeadObjectCommand(this.#at(name)), { abortSignal })
        } catch (error) {
          if (statusOf(error as S3Failure) !== 404) throw error
          return undefined
        }
      })
      if (answer !== undefined) return answer
      // A 404 to HEAD has no body to say what is missing: "no such object" is to mean that the bucket is there.
      await this.#headBucket(what, new HeadBucketCommand({ Bucket: this.#bucket }), signal)
      return undefined
    })
    return found && { name, size: found.ContentLength ?? 0, modifiedAt: this.#timeOf(name, found.LastModified) }
  }

  async *list(prefix: string, options: ListOptions): AsyncGenerator<ObjectEntry> {
    checkPrefix(prefix)
    for await (const page of this.#pages(prefix, options)) {
      for (const { Key, Size, LastModified } of page.Contents ?? []) {
        const name = (Key ?? '').slice(this.#keyPrefix.length)
        if (isObjectName(name)) yield { name, size: Size ?? 0, modifiedAt: this.#timeOf(name, LastModified) }
      }
    }
  }

  async *listFolders(prefix: string, signal: AbortSignal): AsyncGenerator<string> {
    checkFolder(prefix)
    for await (const page of this.#pages(prefix, { signal, delimiter: '/' })) {
      for (const { Prefix } of page.CommonPrefixes ?? []) {
        const folder = (Prefix ?? '').slice(this.#keyPrefix.length)
        if (isObjectName(folder.slice(0, -1))) yield folder
      }
    }
  }

  async delete(names: readonly ObjectName[], signal: AbortSignal): Promise<void> {
    for (const name of names) checkObjectName(name)
    for (let first = 0; first < names.length; first += PAGE)
      await this.#deleteOnce(names.slice(first, first + PAGE), signal)
  }

  /** The Date header of a HEAD for the bucket: as fresh as the answer, since nobody may cache what was signed. */
  async storeTime(signal: AbortSignal): Promise<Date> {
    const what = "asking for the store's time"
    return this.#retry.run(what, signal, async () => {
      let date: string | undefined
      const command = new HeadBucketCommand({ Bucket: this.#bucket })
      command.middlewareStack.add(
        withResponseHeaders((headers) => (date = headers['date'])),
        { step: 'deserialize', name: 'tidemarkDate', priority: 'low' },
      )
      await this.#headBucket(what, command, signal)
      const time = new Date(date ?? Number.NaN)
      if (Number.isNaN(time.getTime())) throw new StoreUnavailableError(what, this.url, { facts: { date } })
      return time
    })
  }

  async probe(signal: AbortSignal): Promise<StoreCapabilities> {
    const found = await probeS3({
      put: (name, bytes, how) =>
        this.#retry.run(`writing ${name}`, signal, () =>
          this.#putOnce(name, bytes, how.sha256, how.ifAbsent, signal, how),
        ),
      remove: (name, versionId) =>
        this.#retry.run(`deleting ${name}`, signal, () => this.#removeVersion(name, versionId, signal)),
      // Its own deadline bounds it.
      abandon: (name, versionId) => this.#removeVersion(name, versionId, new AbortController().signal),
    })
    this.#conditionalPut = found.conditionalPut
    this.#contentMd5 = found.checksum === 'md5'
    return { conditionalPut: found.conditionalPut === 'enforced', checksumAtIngest: found.checksum !== 'none' }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#client.destroy()
  }

  async #headBucket(what: string, command: HeadBucketCommand, signal: AbortSignal): Promise<void> {
    await this.#attempt(what, undefined, 0, signal, async (abortSignal) => {
      try {
        await this.#client.send(command, { abortSignal })
      } catch (error) {
        if (statusOf(error as S3Failure) === 404) throw new StoreMissingError(this.url, { cause: error })
        throw error
      }
    })
  }

  async #putOnce(
    name: ObjectName,
    bytes: Uint8Array,
    sha256: string,
    ifAbsent: boolean,
    signal: AbortSignal,
    wrong: { md5?: string } = {},
  ): Promise<PutAnswer> {
    const body = bodyStream(bytes)
    const unsent = new AbortController()
    const command = new PutObjectCommand({
      ...this.#at(name),
      Body: body,
      ContentLength: bytes.length,
      ChecksumSHA256: Buffer.from(sha256, 'hex').toString('base64'),
      ...(ifAbsent && { IfNoneMatch: '*' }),
    })
    const md5 = wrong.md5 ?? (this.#contentMd5 ? hash('md5', bytes, 'base64') : undefined)
    const headers = { 'x-amz-content-sha256': sha256, ...(md5 !== undefined && { 'content-md5': md5 }) }
    command.middlewareStack.add(withHeaders(headers), { step: 'build', name: 'tidemarkPayloadHash', priority: 'low' })
    return this.#attempt(`writing ${name}`, name, bytes.length, signal, async (abortSignal): Promise<PutAnswer> => {
      try {
        const either = AbortSignal.any([abortSignal, unsent.signal])
        const { VersionId } = await this.#client.send(command, { abortSignal: either })
        return { outcome: 'stored', ...(VersionId !== undefined && { versionId: VersionId }) }
      } catch (error) {
        const status = statusOf(error as S3Failure)
        if (ifAbsent && status === 412) return { outcome: 'taken' }
        if (ifAbsent && status === 501) return { outcome: 'unsupported' }
        throw error
      } finally {
        // Answered before all of it was read: Node would wait for ever to send the rest, on a socket that nobody else gets.
        if (!body.readableEnded) unsent.abort()
      }
    })
  }

  async #getOnce(name: ObjectName, options: GetOptions): Promise<Buffer> {
    const { signal, range } = options
    const maxBytes = getBound(options)
    const what = `reading ${name}`
    const Range = range && `bytes=${range.offset}-${range.offset + range.length - 1}`
    const answer = await this.#attempt(what, name, 0, signal, async (abortSignal) => {
      try {
        return await this.#client.send(new GetObjectCommand({ ...this.#at(name), Range }), { abortSignal })
      } catch (error) {
        if (statusOf(error as S3Failure) === 416) return undefined // begins at or beyond the end
        throw error
      }
    })
    if (answer === undefined) return Buffer.alloc(0)
    const length = answer.ContentLength
    const body = answer.Body as Readable
    const tooLarge = (found: number): ObjectTooLargeError => new ObjectTooLargeError(name, this.url, found, maxBytes)
    if (length !== undefined && length > maxBytes) {
      body.destroy()
      throw tooLarge(length)
    }
    const bytes = await this.#attempt(what, name, length ?? range?.length ?? 0, signal, (abortSignal) =>
      readBody(body, { length, maxBytes, into: options.into, tooLarge }, abortSignal),
    )
    if (range === undefined) return bytes
    const span = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(answer.ContentRange ?? '')
    if (span === null) {
      // The store sent all of it.
      const part = bytes.subarray(range.offset, range.offset + range.length)
      if (options.into === undefined) return part
      options.into.set(part)
      return bufferFor(part.length, options.into)
    }
    const [start = 0, , total = 0] = span.slice(1).map(Number)
    if (start === range.offset && bytes.length === Math.min(range.length, total - start)) return bytes
    throw new StoreUnavailableError(what, this.url, {
      facts: { name, asked: Range, got: answer.ContentRange, bytes: bytes.length },
    })
  }

  async *#pages(
    prefix: string,
    options: ListOptions & { delimiter?: string },
  ): AsyncGenerator<ListObjectsV2CommandOutput> {
    const { signal, startAfter, delimiter } = options
    const what = `listing ${prefix}`
    let token: string | undefined
    do {
      const command = new ListObjectsV2Command({
        Bucket: this.#bucket,
        Prefix: this.#keyPrefix + prefix,
        MaxKeys: PAGE,
        ...(delimiter !== undefined && { Delimiter: delimiter }),
        ...(startAfter !== undefined && { StartAfter: this.#keyPrefix + startAfter }),
        ...(token !== undefined && { ContinuationToken: token }),
      })
      const page = await this.#retry.run(what, signal, () =>
        this.#attempt(what, undefined, 0, signal, (abortSignal) => this.#client.send(command, { abortSignal })),
      )
      yield page
      token = page.IsTruncated === true ? page.NextContinuationToken : undefined
    } while (token !== undefined)
  }

  async #deleteOnce(names: readonly ObjectName[], signal: AbortSignal): Promise<void> {
    const what = `deleting ${names.length} objects`
    const command = new DeleteObjectsCommand({
      Bucket: this.#bucket,
      Delete: { Quiet: true, Objects: names.map((name) => ({ Key: this.#keyPrefix + name })) },
    })
    command.middlewareStack.add(withBodyMd5(), { step: 'build', name: 'tidemarkContentMd5', priority: 'low' })
    const answer = await this.#attempt(what, undefined, 0, signal, (abortSignal) =>
      this.#client.send(command, { abortSignal }),
    )
    const failed = (answer.Errors ?? []).filter(({ Code }) => Code !== 'NoSuchKey')
    const [first] = failed
    if (first === undefined) return
    const keys = failed.map(({ Key = '', Code }) => `${Key.slice(this.#keyPrefix.length)}: ${Code}`)
    const cause = Object.assign(
      new Error(`${failed.length} objects were not deleted: ${keys.slice(0, 20).join(', ')}`),
      { name: first.Code },
    )
    throw this.#translate(cause, what, first.Key?.slice(this.#keyPrefix.length))
  }

  async #removeVersion(name: ObjectName, versionId: string | undefined, signal: AbortSignal): Promise<void> {
    const command = new DeleteObjectCommand({
      ...this.#at(name),
      ...(versionId !== undefined && { VersionId: versionId }),
    })
    await this.#attempt(`deleting ${name}`, name, 0, signal, (abortSignal) =>
      this.#client.send(command, { abortSignal }),
    )
  }

  /** Ages decide what a sweep takes: an object without a time has no age, and is not to pass for an old one. */
  #timeOf(name: ObjectName, modifiedAt: Date | undefined): Date {
    if (modifiedAt !== undefined && !Number.isNaN(modifiedAt.getTime())) return modifiedAt
    throw new StoreUnavailableError(`looking for ${name}`, this.url, {
      hint: 'the store answers without the time of the object (LastModified): see whether a proxy in between removes it',
      facts: { name },
    })
  }

  #at(name: ObjectName): { Bucket: string; Key: string } {
    return { Bucket: this.#bucket, Key: this.#keyPrefix + name }
  }

  #translate(error: unknown, what: string, name: ObjectName | undefined): unknown {
    return translateS3Error(error, { what, url: this.url, now: this.#clock.now(), ...(name !== undefined && { name }) })
  }

  /** One request under its deadline, its errors in our words. */
  async #attempt<T>(
    what: string,
    name: ObjectName | undefined,
    bytes: number,
    signal: AbortSignal,
    send: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const ms = this.#timing.requestMs + (bytes / this.#timing.slowestBytesPerSecond) * 1000
    try {
      return await withDeadline({ clock: this.#clock, ms, signal, what, url: this.url }, send)
    } catch (error) {
      throw this.#translate(error, what, name)
    }
  }
}
