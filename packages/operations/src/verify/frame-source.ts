/**
 * Frames in the order of the file list, from packs in the order they are needed.
 *
 * Neighbouring frames of a file lie in the packs that were open at once, so a handful of packs, or of parts of large ones, is held (in the
 * threads), the least recently used one leaves, and a frame is asked for ahead of its use as long as there is room.
 */
import type { Keyring } from '@tidemark/crypto'
import { freeBuffer, ownArrayBuffer } from '@tidemark/kernel'
import { ThreadPool } from '@tidemark/kernel/threads'
import {
  type CommitRecord,
  DocumentDamagedError,
  type PackEntry,
  type PackTable,
  type Repository,
} from '@tidemark/repository'
import type { Rereads } from '../restore/rereads.ts'
import { threadKeys } from '../threads/thread-keys.ts'
import type { FrameReply, FrameRequest } from './frame-thread.ts'
import { type PackParts, PackSource } from './pack-parts.ts'

const FRAMES_KEPT = 8

/** How large packs are divided is worth remembering: to find out, all of it is read. */
const DIVISIONS_KEPT = 16

interface HeldPart {
  readonly thread: number
  readonly loaded: Promise<unknown>
  /** Frames that were asked for and not yet sent to the thread: while there are any, the part stays. */
  pins: number
}

export class FrameSource implements AsyncDisposable {
  readonly #table: PackTable
  readonly #packs: PackSource
  readonly #pool: ThreadPool<FrameRequest, FrameReply>
  readonly #held = new Map<string, HeldPart>()
  readonly #frames = new Map<string, Promise<Uint8Array>>()
  readonly #dropped = new Set<string>()
  readonly #divisions = new Map<number, PackParts>()
  /** Large packs are divided one at a time: each holds a part meanwhile. */
  #dividing: Promise<unknown> = Promise.resolve()

  constructor(
    repository: Repository,
    record: CommitRecord,
    table: PackTable,
    deps: { keyring: Keyring; threads: number; rereads: Rereads; signal: AbortSignal },
  ) {
    this.#table = table
    this.#packs = new PackSource(repository, record, deps.keyring, deps.rereads, deps.signal)
    this.#pool = new ThreadPool(new URL('./frame-thread.ts', import.meta.url), threadKeys(deps.keyring), deps.threads)
  }

  /** Held at once: what was open together when the backup was written, and room to read ahead. */
  get #partsKept(): number {
    return this.#pool.size + 1
  }

  /**
   * To be used before the next call but FRAMES_KEPT − 1: then it is given back. Wait for one before asking for another.
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

  /** Begins to fetch what will be asked for soon, unless the parts that are held are all in use. */
  ahead(pack: number, frame: number): void {
    // A large pack that was not divided yet is read for it: not ahead of its time.
    if (this.#known(pack) === undefined) return
    let pinned = 0
    for (const { pins } of this.#held.values()) if (pins > 0) pinned += 1
    // The last place is for the frame that somebody waits for.
    if (pinned < this.#partsKept - 1) void this.frame(pack, frame)
  }

  /** Opens every frame that nobody asked for, in all packs. @throws as `frame`. */
  async finish(): Promise<void> {
    for (let pack = 0; pack < this.#table.packs.length; pack += 1) {
      const { parts } = this.#known(pack) ?? (await this.#divide(pack))
      for (let part = 0; part < parts.length; part += 1) {
        const key = keyOf(pack, part)
        if (!this.#held.has(key) && !this.#dropped.has(key)) await this.#hold(pack, part).loaded
        await this.#drop(key)
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool[Symbol.asyncDispose]()
    await Promise.allSettled([...this.#held.values()].map(({ loaded }) => loaded))
  }

  async #open(pack: number, frame: number): Promise<Uint8Array> {
    const { parts } = this.#known(pack) ?? (await this.#divide(pack))
    const part = parts.findIndex(({ from, to }) => frame >= from && frame < to)
    if (part === -1) throw new DocumentDamagedError(`pack ${pack}`, `it has no frame ${frame}`)
    const held = this.#hold(pack, part)
    held.pins += 1
    try {
      await held.loaded
    } finally {
      held.pins -= 1
    }
    // Messages to one thread keep their order: a drop sent later cannot overtake this.
    const plaintext = await this.#pool.call({ type: 'open', key: keyOf(pack, part), frame }, [], held.thread)
    if (plaintext === undefined) throw new RangeError('the thread gave no frame')
    return plaintext
  }

  #known(pack: number): PackParts | undefined {
    return this.#packs.whole(this.#entry(pack)) ?? this.#divisions.get(pack)
  }

  async #divide(pack: number): Promise<PackParts> {
    const divided = this.#dividing.then(
      async () => this.#divisions.get(pack) ?? (await this.#packs.divide(this.#entry(pack))),
    )
    this.#dividing = divided.catch(() => {})
    this.#divisions.set(pack, await divided)
    for (const oldest of this.#divisions.keys()) {
      if (this.#divisions.size <= DIVISIONS_KEPT) break
      this.#divisions.delete(oldest)
    }
    return await divided
  }

  #hold(pack: number, part: number): HeldPart {
    const key = keyOf(pack, part)
    const held = this.#held.get(key) ?? this.#startLoad(pack, part)
    // The most recently used one stands last.
    this.#held.delete(key)
    this.#held.set(key, held)
    return held
  }

  #startLoad(pack: number, part: number): HeldPart {
    const thread = (pack + part) % this.#pool.size
    const loaded = this.#fetch(pack, part, thread)
    loaded.catch(() => {})
    return { thread, loaded, pins: 0 }
  }

  async #fetch(pack: number, number: number, thread: number): Promise<void> {
    const key = keyOf(pack, number)
    for (const [oldest, { pins }] of this.#held) {
      const others = this.#held.size - (this.#held.has(key) ? 1 : 0)
      if (others < this.#partsKept) break
      if (oldest !== key && pins === 0) await this.#drop(oldest)
    }
    const { place, what, ends, parts } = this.#known(pack) ?? (await this.#divide(pack))
    const part = parts[number]
    if (part === undefined) throw new RangeError(`pack ${pack} has no part ${number}`)
    const stored = ownArrayBuffer(await this.#packs.read(this.#entry(pack), part))
    const { offset, from, to } = part
    await this.#pool.call({ type: 'load', key, stored, offset, from, to, ends, place, what }, [stored], thread)
  }

  async #drop(key: string): Promise<void> {
    const held = this.#held.get(key)
    if (held === undefined) return
    await held.loaded
    if (held.pins > 0 || this.#held.get(key) !== held) return
    this.#held.delete(key)
    this.#dropped.add(key)
    await this.#pool.call({ type: 'drop', key }, [], held.thread)
  }

  #entry(pack: number): PackEntry {
    const entry = this.#table.packs.at(pack)
    if (entry === undefined) throw new RangeError(`pack ${pack} is not in the pack table`)
    return entry
  }
}

function keyOf(pack: number, part: number): string {
  return `${pack}:${part}`
}
