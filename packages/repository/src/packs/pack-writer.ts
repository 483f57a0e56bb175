/**
 * Frames in, stored packs out.
 *
 * The writer lends every buffer there is: `threads × 3 + 2` frames of 1 MiB and `threads + uploads` packs. When all are out,
 * `frame()` waits, its caller stops reading, and so the source is slowed down: memory does not grow with the database.
 * A failed upload or thread fails the writer for good; every waiting and later call throws that error.
 */
import { Worker } from 'node:worker_threads'
import { type Keyring, FRAME_BYTES, type SuiteName } from '@tidemark/crypto'
import { AbortedError, abortError, freeBuffer, ownArrayBuffer, pageAligned } from '@tidemark/kernel'
import { endThread } from '@tidemark/kernel/threads'
import { PackList } from '../records/pack-list.ts'
import type { AdoptedFrames } from './adopted-frames.ts'
import { packName } from '../layout.ts'
import {
  type FromSealingThread,
  type SealedPack,
  type SealingThreadData,
  type ToSealingThread,
  type WalIdentity,
  packBufferBytes,
} from './sealing-thread.ts'

export interface PackWriterOptions {
  readonly backupId: string
  readonly keyring: Keyring
  readonly suite: SuiteName
  /** zstd level 1..19, 0 for none. */
  readonly compressionLevel: number
  readonly threads: number
  /** Packs on their way to the repositories at once. */
  readonly uploads: number
  readonly packBytes: number
  /** Makes a finished pack durable. The bytes are only lent until it resolves. */
  readonly store: (name: string, bytes: Uint8Array, sha256: string) => Promise<void>
  readonly signal: AbortSignal
}

export interface FrameLocation {
  /** Number of the pack in the pack table, from 0. */
  readonly pack: number
  readonly frame: number
}

export interface SealedWal {
  readonly sealed: Uint8Array
  readonly digest: string
  readonly sha256: string
}

interface Thread {
  readonly worker: Worker
  /** Frames and WAL segments sent and not yet answered. */
  outstanding: number
}

const YOUNG_GENERATION_MB = 3

type Settle<T> = { resolve: (value: T) => void; reject: (error: unknown) => void }

export class PackWriter implements AsyncDisposable {
  readonly #options: PackWriterOptions
  readonly #threads: Thread[]
  readonly #freeFrames: ArrayBuffer[] = []
  readonly #frameWaiters: Settle<ArrayBuffer>[] = []
  readonly #freePacks: ArrayBuffer[] = []
  readonly #packWaiters: Thread[] = []
  readonly #located = new Map<number, (location: FrameLocation) => void>()
  readonly #walTickets = new Map<number, Settle<SealedWal>>()
  readonly #uploads = new Set<Promise<void>>()
  readonly #packs = new PackList()
  /** Numbers of the packs that are not stored yet, by ordinal. */
  readonly #numbers = new Map<number, number>()
  #adopted: { readonly packs: PackList; readonly numbers: Int32Array } | undefined
  readonly #onAbort: () => void
  #idleWaiters: Settle<void>[] = []
  #closing: { left: number; settle: Settle<void> } | undefined
  #tickets = 0
  #ordinals = 0
  #storedBytes = 0
  #disposing = false
  #failure: { error: unknown } | undefined

  constructor(options: PackWriterOptions) {
    this.#options = options
    const { backupId, keyring, suite, compressionLevel, packBytes, threads, uploads, signal } = options
    const data: SealingThreadData = {
      suite,
      dataKey: keyring.writeKey,
      digestKey: keyring.digestKey,
      compressionLevel,
      backupId,
      packBytes,
    }
    for (let i = 0; i < threads * 3 + 2; i += 1) this.#freeFrames.push(new ArrayBuffer(FRAME_BYTES))
    // Aligned: a file store writes them past the page cache.
    for (let i = 0; i < threads + uploads; i += 1) this.#freePacks.push(pageAligned(packBufferBytes(packBytes)).buffer)
    this.#threads = Array.from({ length: threads }, () => this.#startThread(data))
    this.#onAbort = (): void => this.#fail(abortError(signal, 'writing packs'))
    signal.addEventListener('abort', this.#onAbort, { once: true })
    if (signal.aborted) this.#onAbort()
  }

  /** Bytes of the packs that are durable. */
  get storedBytes(): number {
    return this.#storedBytes
  }

  /** Before the first frame: frames of these packs are not stored again. The packs that were used are in what `finish` gives. */
  adopt(packs: PackList, frames: AdoptedFrames): void {
    this.#adopted = { packs, numbers: new Int32Array(packs.length).fill(-1) }
    for (const thread of this.#threads) this.#post(thread, { type: 'adopt', frames: frames.shared })
  }

  /** A free frame buffer if there is one: the way that needs no microtask. */
  tryFrame(): ArrayBuffer | undefined {
    this.#throwIfFailed()
    return this.#freeFrames.pop()
  }

  /** A free frame buffer of FRAME_BYTES; waits until one is returned. */
  frame(): Promise<ArrayBuffer> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) return reject(this.#failure.error)
      const free = this.#freeFrames.pop()
      if (free === undefined) this.#frameWaiters.push({ resolve, reject })
      else resolve(free)
    })
  }

  /** Hands a filled frame over. `located` is called once its place is known, before `finish` resolves. */
  seal(buffer: ArrayBuffer, length: number, located: (location: FrameLocation) => void): void {
    this.#throwIfFailed()
    const ticket = this.#take()
    this.#located.set(ticket, located)
    this.#post(this.#leastBusy(), { type: 'frame', ticket, buffer, length }, [buffer])
  }

  /** Seals one WAL segment beside the frames. A buffer of its own is taken, and empty afterwards; a part of another is copied. */
  sealWal(segment: Uint8Array, identity: WalIdentity): Promise<SealedWal> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) return reject(this.#failure.error)
      const ticket = this.#take()
      this.#walTickets.set(ticket, { resolve, reject })
      const buffer = ownArrayBuffer(segment)
      this.#post(this.#leastBusy(), { type: 'wal', ticket, buffer, identity }, [buffer])
    })
  }

  /** Closes the open packs and resolves once all packs are durable, and gives the memory back. */
  async finish(): Promise<PackList> {
    await this.#idle()
    await new Promise<void>((resolve, reject) => {
      if (this.#failure !== undefined) return reject(this.#failure.error)
      this.#closing = { left: this.#threads.length, settle: { resolve, reject } }
      for (const thread of this.#threads) this.#post(thread, { type: 'close' })
    })
    while (this.#uploads.size > 0) await Promise.all(this.#uploads)
    this.#throwIfFailed()
    for (const buffer of [...this.#freePacks, ...this.#freeFrames]) freeBuffer(new Uint8Array(buffer))
    this.#freePacks.length = 0
    this.#freeFrames.length = 0
    return this.#packs
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposing = true
    this.#options.signal.removeEventListener('abort', this.#onAbort)
    // Nobody who still waits would ever hear from a thread again.
    this.#fail(new AbortedError('writing packs'))
    await Promise.all(this.#threads.map(({ worker }) => endThread(worker)))
    await Promise.allSettled(this.#uploads)
  }

  #startThread(data: SealingThreadData): Thread {
    const worker = new Worker(new URL('./sealing-thread.ts', import.meta.url), {
      workerData: { tidemark: 'sealing-thread', data },
      name: 'tidemark-sealing',
      // It makes next to no JavaScript objects; V8's default lets the young generation of each thread grow by tens of megabytes first.
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_GENERATION_MB },
    })
    const thread: Thread = { worker, outstanding: 0 }
    worker.on('message', (message: FromSealingThread) => this.#receive(thread, message))
    worker.on('error', (error) => this.#fail(error))
    worker.on('exit', (code) => {
      if (!this.#disposing) this.#fail(new Error(`a sealing thread ended by itself with code ${code}`))
    })
    return thread
  }

  #receive(thread: Thread, message: FromSealingThread): void {
    switch (message.type) {
      case 'sealed':
        this.#locate(message.ticket, { pack: this.#numbers.get(message.ordinal) ?? -1, frame: message.frame })
        return this.#frameIsBack(thread, message.buffer)
      case 'known':
        this.#locate(message.ticket, { pack: this.#adoptedNumber(message.pack), frame: message.frame })
        return this.#frameIsBack(thread, message.buffer)
      case 'want-pack':
        this.#packWaiters.push(thread)
        return this.#lendPacks()
      case 'pack':
        return this.#upload(message.pack)
      case 'wal-sealed':
        this.#walTickets.get(message.ticket)?.resolve(message)
        this.#walTickets.delete(message.ticket)
        return this.#answered(thread)
      case 'closed': {
        const closing = this.#closing
        if (closing === undefined) return
        closing.left -= 1
        if (closing.left === 0) closing.settle.resolve()
        return
      }
      default:
        return message satisfies never
    }
  }

  #frameIsBack(thread: Thread, buffer: ArrayBuffer): void {
    this.#answered(thread)
    const waiter = this.#frameWaiters.shift()
    if (waiter === undefined) this.#freeFrames.push(buffer)
    else waiter.resolve(buffer)
  }

  /** An adopted pack gets its number, and its place in the pack table, when the first frame of it is met again. */
  #adoptedNumber(pack: number): number {
    const entry = this.#adopted?.packs.at(pack)
    if (this.#adopted === undefined || entry === undefined) throw new RangeError(`pack ${pack} was not adopted`)
    const known = this.#adopted.numbers[pack] ?? -1
    if (known >= 0) return known
    const number = this.#packs.reserve()
    this.#packs.set(number, entry)
    this.#adopted.numbers[pack] = number
    return number
  }

  #locate(ticket: number, location: FrameLocation): void {
    const located = this.#located.get(ticket)
    this.#located.delete(ticket)
    try {
      located?.(location)
    } catch (error) {
      // Thrown on, it would end the process: nobody called this.
      this.#fail(error)
    }
  }

  #lendPacks(): void {
    while (this.#packWaiters.length > 0) {
      const buffer = this.#freePacks.pop()
      if (buffer === undefined) return
      const thread = this.#packWaiters.shift()
      if (thread === undefined) return
      this.#ordinals += 1
      this.#numbers.set(this.#ordinals, this.#packs.reserve())
      this.#post(thread, { type: 'lend-pack', ordinal: this.#ordinals, buffer }, [buffer])
    }
  }

  #upload(pack: SealedPack): void {
    if (this.#failure !== undefined) return
    const upload = this.#storePack(pack).finally(() => this.#uploads.delete(upload))
    this.#uploads.add(upload)
  }

  async #storePack({ ordinal, bytes, sha256, salt, buffer }: SealedPack): Promise<void> {
    const name = packName(ordinal)
    try {
      await this.#options.store(name, new Uint8Array(buffer, 0, bytes), sha256)
    } catch (error) {
      return this.#fail(error)
    }
    this.#packs.set(this.#numbers.get(ordinal) ?? -1, { name, bytes, sha256, salt })
    this.#numbers.delete(ordinal)
    this.#storedBytes += bytes
    this.#freePacks.push(buffer)
    this.#lendPacks()
  }

  #idle(): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) return reject(this.#failure.error)
      if (this.#threads.every(({ outstanding }) => outstanding === 0)) return resolve()
      this.#idleWaiters.push({ resolve, reject })
    })
  }

  #answered(thread: Thread): void {
    thread.outstanding -= 1
    if (this.#idleWaiters.length === 0 || this.#threads.some(({ outstanding }) => outstanding > 0)) return
    const waiters = this.#idleWaiters
    this.#idleWaiters = []
    for (const { resolve } of waiters) resolve()
  }

  #leastBusy(): Thread {
    return this.#threads.reduce((a, b) => (b.outstanding < a.outstanding ? b : a))
  }

  #take(): number {
    this.#tickets += 1
    return this.#tickets
  }

  #post(thread: Thread, message: ToSealingThread, transfer: ArrayBuffer[] = []): void {
    if (message.type === 'frame' || message.type === 'wal') thread.outstanding += 1
    thread.worker.postMessage(message, transfer)
  }

  #throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure.error
  }

  #fail(error: unknown): void {
    if (this.#failure !== undefined) return
    this.#failure = { error }
    const waiting: { reject: (error: unknown) => void }[] = [
      ...this.#frameWaiters,
      ...this.#walTickets.values(),
      ...this.#idleWaiters,
    ]
    if (this.#closing !== undefined) waiting.push(this.#closing.settle)
    for (const { reject } of waiting) reject(error)
  }
}
