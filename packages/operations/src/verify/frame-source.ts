/**
 * Frames in the order of the file list, from packs in the order they are needed.
 *
 * Neighbouring frames of a file lie in the packs that were open at once, so a handful of packs is held (in the threads), the least
 * recently used one leaves, and a frame is asked for ahead of its use.
 */
import type { Keyring } from '@tidemark/crypto'
import { type Logger, freeBuffer, ownArrayBuffer } from '@tidemark/kernel'
import { ClusterLayout, type CommitRecord, type PackTable, type Repository } from '@tidemark/repository'
import { readPack } from '../restore/fetch-pack.ts'
import { threadKeys } from '../threads/thread-keys.ts'
import { ThreadPool } from '@tidemark/kernel/threads'
import type { FrameReply, FrameRequest } from './frame-thread.ts'

const FRAMES_KEPT = 8

interface HeldPack {
  readonly thread: number
  readonly loaded: Promise<unknown>
  /** Frames that were asked for and not yet sent to the thread: while there are any, the pack stays. */
  pins: number
}

export class FrameSource implements AsyncDisposable {
  readonly #repository: Repository
  readonly #record: CommitRecord
  readonly #table: PackTable
  readonly #signal: AbortSignal
  readonly #pool: ThreadPool<FrameRequest, FrameReply>
  readonly #packs = new Map<number, HeldPack>()
  readonly #frames = new Map<string, Promise<Uint8Array>>()
  readonly #dropped = new Set<number>()

  constructor(
    repository: Repository,
    record: CommitRecord,
    table: PackTable,
    deps: { keyring: Keyring; threads: number; logger: Logger; signal: AbortSignal },
  ) {
    this.#repository = repository
    this.#record = record
    this.#table = table
    this.#signal = deps.signal
    this.#pool = new ThreadPool(new URL('./frame-thread.ts', import.meta.url), threadKeys(deps.keyring), deps.threads)
  }

  /** Packs kept at once: what was open together when the backup was written, and room to read ahead. */
  get #packsKept(): number {
    return this.#pool.size + 1
  }

  /**
   * To be used before the next call but FRAMES_KEPT − 1: then it is given back.
   *
   * @throws {BackupIncompleteError} @throws {SealRefusedError} @throws {DocumentDamagedError}
   */
  frame(pack: number, frame: number): Promise<Uint8Array> {
    const key = `${pack}:${frame}`
    const known = this.#frames.get(key)
    if (known !== undefined) return known
    const opened = this.#open(pack, frame)
    opened.catch(() => {})
    this.#frames.set(key, opened)
    for (const [oldest, evicted] of this.#frames) {
      if (this.#frames.size <= FRAMES_KEPT) break
      this.#frames.delete(oldest)
      // Whoever asked for it has used it: more frames are kept than are asked for ahead.
      evicted.then(freeBuffer, () => {})
    }
    return opened
  }

  /** Opens every frame that nobody asked for, in all packs. @throws as `frame`. */
  async finish(): Promise<void> {
    for (let pack = 0; pack < this.#table.packs.length; pack += 1) {
      if (!this.#packs.has(pack) && !this.#dropped.has(pack)) await this.#hold(pack).loaded
      await this.#drop(pack)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool[Symbol.asyncDispose]()
    await Promise.allSettled([...this.#packs.values()].map(({ loaded }) => loaded))
  }

  async #open(pack: number, frame: number): Promise<Uint8Array> {
    const held = this.#hold(pack)
    held.pins += 1
    try {
      await held.loaded
    } finally {
      held.pins -= 1
    }
    // Messages to one thread keep their order: a drop sent later cannot overtake this.
    const plaintext = await this.#pool.call({ type: 'open', pack, frame }, [], held.thread)
    if (plaintext === undefined) throw new RangeError('the thread gave no frame')
    return plaintext
  }

  #hold(pack: number): HeldPack {
    const held = this.#packs.get(pack) ?? this.#startLoad(pack)
    // The most recently used one stands last.
    this.#packs.delete(pack)
    this.#packs.set(pack, held)
    return held
  }

  #startLoad(pack: number): HeldPack {
    const thread = pack % this.#pool.size
    const loaded = this.#fetch(pack, thread)
    loaded.catch(() => {})
    return { thread, loaded, pins: 0 }
  }

  async #fetch(pack: number, thread: number): Promise<void> {
    for (const [oldest, { pins }] of this.#packs) {
      if (this.#packs.size <= this.#packsKept) break
      if (oldest !== pack && pins === 0) await this.#drop(oldest)
    }
    const entry = this.#table.packs.at(pack)
    if (entry === undefined) throw new RangeError(`pack ${pack} is not in the pack table`)
    const backupId = entry.backup ?? this.#record.backupId
    const name = new ClusterLayout(this.#record.cluster, this.#record.systemId).base(backupId) + entry.name
    const stored = ownArrayBuffer(await readPack(this.#repository, name, entry, this.#record.backupId, this.#signal))
    const what = `${entry.name} of backup ${backupId} in ${this.#repository.name}`
    await this.#pool.call(
      { type: 'load', pack, stored, backupId, ordinal: Number(entry.name.slice('pack-'.length)), what },
      [stored],
      thread,
    )
  }

  async #drop(pack: number): Promise<void> {
    const held = this.#packs.get(pack)
    if (held === undefined) return
    await held.loaded
    if (held.pins > 0 || this.#packs.get(pack) !== held) return
    this.#packs.delete(pack)
    this.#dropped.add(pack)
    await this.#pool.call({ type: 'drop', pack }, [], held.thread)
  }
}
