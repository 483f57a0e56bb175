/**
 * An ObjectStore in memory, for tests of everything above the port.
 *
 * It keeps every obligation of the port but durability, and can be told to break them one by one:
 * scripted faults, lost answers, delays, damaged contents, a store without conditional put.
 */
import { hash } from 'node:crypto'
import { throwIfAborted, type Clock } from '@tidemark/kernel'
import { systemClock } from '@tidemark/kernel'
import { withDeadline } from '../deadline.ts'
import { ChecksumRefusedError, ObjectNotFoundError, ObjectTooLargeError } from '../errors.ts'
import { checkFolder, checkObjectName, checkPrefix } from '../object-name.ts'
import type {
  GetOptions,
  ListOptions,
  ObjectEntry,
  ObjectName,
  ObjectStore,
  PutOptions,
  StoreCapabilities,
} from '../object-store.ts'
import { bufferFor, getBound } from '../object-store.ts'
import { Faults, type StoreMethod } from './faults.ts'

export interface MemoryObjectStoreOptions {
  readonly url?: string
  /** Of this host: gives the deadline, and the store's time unless there is a `storeClock`. */
  readonly clock?: Clock
  /** Gives `modifiedAt` and `storeTime`. */
  readonly storeClock?: Clock
  /** false: as a versioned bucket on RGW, of two racing `putIfAbsent` both are told 'stored'. Default true. */
  readonly conditionalPut?: boolean
  /** false: a wrong `sha256` is not noticed. Default true. */
  readonly checksumAtIngest?: boolean
  readonly deadlineMs?: number
}

interface Stored {
  bytes: Buffer
  readonly modifiedAt: Date
}

export class MemoryObjectStore implements ObjectStore {
  readonly url: string
  readonly faults = new Faults()
  readonly #objects = new Map<ObjectName, Stored>()
  readonly #clock: Clock
  readonly #storeClock: Clock
  readonly #capabilities: StoreCapabilities
  readonly #deadlineMs: number

  constructor(options: MemoryObjectStoreOptions = {}) {
    this.url = options.url ?? 'memory://'
    this.#clock = options.clock ?? systemClock
    this.#storeClock = options.storeClock ?? this.#clock
    this.#deadlineMs = options.deadlineMs ?? 60_000
    this.#capabilities = {
      conditionalPut: options.conditionalPut ?? true,
      checksumAtIngest: options.checksumAtIngest ?? true,
    }
  }

  async put(name: ObjectName, bytes: Uint8Array, options: PutOptions): Promise<void> {
    checkObjectName(name)
    await this.#call('put', name, options.signal, async () => this.#store(name, bytes, options))
  }

  async putIfAbsent(name: ObjectName, bytes: Uint8Array, options: PutOptions): Promise<'stored' | 'exists'> {
    checkObjectName(name)
    return this.#call('putIfAbsent', name, options.signal, async (signal) => {
      if (this.#objects.has(name)) return 'exists'
      if (!this.#capabilities.conditionalPut) {
        await new Promise(setImmediate) // the gap between the look and the put
        throwIfAborted(signal, `writing ${name}`)
      }
      this.#store(name, bytes, options)
      return 'stored'
    })
  }

  async get(name: ObjectName, options: GetOptions): Promise<Buffer> {
    checkObjectName(name)
    return this.#call('get', name, options.signal, async () => {
      const stored = this.#objects.get(name)
      if (stored === undefined) throw new ObjectNotFoundError(name, this.url)
      const { offset, length } = options.range ?? { offset: 0, length: stored.bytes.length }
      const found = stored.bytes.subarray(offset, offset + length)
      if (found.length > getBound(options))
        throw new ObjectTooLargeError(name, this.url, found.length, getBound(options))
      const result = bufferFor(found.length, options.into)
      result.set(found)
      return result
    })
  }

  async stat(name: ObjectName, signal: AbortSignal): Promise<ObjectEntry | undefined> {
    checkObjectName(name)
    return this.#call('stat', name, signal, async () => this.#entry(name))
  }

  async *list(prefix: string, options: ListOptions): AsyncGenerator<ObjectEntry> {
    checkPrefix(prefix)
    const names = await this.#call('list', prefix, options.signal, async () => this.names(prefix))
    for (const name of names) {
      if (options.startAfter !== undefined && name <= options.startAfter) continue
      throwIfAborted(options.signal, `listing ${prefix}`)
      const entry = this.#entry(name)
      if (entry !== undefined) yield entry
    }
  }

  async *listFolders(prefix: string, signal: AbortSignal): AsyncGenerator<string> {
    checkFolder(prefix)
    const names = await this.#call('listFolders', prefix, signal, async () => this.names(prefix))
    const nested = names.filter((name) => name.includes('/', prefix.length))
    const folders = new Set(nested.map((name) => name.slice(0, name.indexOf('/', prefix.length) + 1)))
    for (const folder of folders) {
      throwIfAborted(signal, `listing ${prefix}`)
      yield folder
    }
  }

  async delete(names: readonly ObjectName[], signal: AbortSignal): Promise<void> {
    for (const name of names) checkObjectName(name)
    await this.#call('delete', names[0], signal, async () => {
      for (const name of names) this.#objects.delete(name)
    })
  }

  async storeTime(signal: AbortSignal): Promise<Date> {
    return this.#call('storeTime', undefined, signal, async () => this.#storeClock.now())
  }

  async probe(signal: AbortSignal): Promise<StoreCapabilities> {
    return this.#call('probe', undefined, signal, async () => this.#capabilities)
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  // For tests, past faults and the clock:

  /** All names below `prefix`, sorted. */
  names(prefix = ''): ObjectName[] {
    // Names are ASCII: the order of UTF-16 code units is the order of bytes.
    return [...this.#objects.keys()].filter((name) => name.startsWith(prefix)).sort()
  }

  bytesOf(name: ObjectName): Buffer | undefined {
    const stored = this.#objects.get(name)
    return stored && Buffer.from(stored.bytes)
  }

  /** Silent damage: what is read from now on is what `change` returns (it may change its argument). */
  corrupt(name: ObjectName, change: (bytes: Buffer) => Uint8Array | void): void {
    const stored = this.#objects.get(name)
    if (stored === undefined) throw new ObjectNotFoundError(name, this.url)
    const bytes = Buffer.from(stored.bytes)
    stored.bytes = Buffer.from(change(bytes) ?? bytes)
  }

  /** As if somebody had deleted it behind our back. */
  lose(name: ObjectName): void {
    if (!this.#objects.delete(name)) throw new ObjectNotFoundError(name, this.url)
  }

  #store(name: ObjectName, bytes: Uint8Array, options: PutOptions): void {
    if (
      this.#capabilities.checksumAtIngest &&
      options.sha256 !== undefined &&
      hash('sha256', bytes) !== options.sha256
    ) {
      throw new ChecksumRefusedError(name, this.url)
    }
    this.#objects.set(name, { bytes: Buffer.from(bytes), modifiedAt: this.#storeClock.now() })
  }

  #entry(name: ObjectName): ObjectEntry | undefined {
    const stored = this.#objects.get(name)
    return stored && { name, size: stored.bytes.length, modifiedAt: stored.modifiedAt }
  }

  async #call<T>(
    method: StoreMethod,
    name: ObjectName | undefined,
    signal: AbortSignal,
    run: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const what = `${method} ${name ?? ''}`.trimEnd()
    return withDeadline({ clock: this.#clock, ms: this.#deadlineMs, signal, what, url: this.url }, async (cut) => {
      const latency = this.faults.latency?.(method, name)
      if (latency !== undefined) await Promise.race([latency, fired(cut)])
      throwIfAborted(cut, what)
      this.faults.strike(method, name, 'before')
      const result = await run(cut)
      this.faults.strike(method, name, 'after')
      return result
    })
  }
}

function fired(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}
