/**
 * Large writes that go past the page cache.
 *
 * A restore writes everything once and reads nothing of it: through the cache each byte is copied once more, pushes out what the host's
 * other work needs, and is waited for all the same when the file is synced. Measured, this was half of a restore's CPU time
 * (docs/adr/0012-direct-io.md). Small writes, and the ends that are no whole blocks, go through the cache.
 */
import { closeSync, constants, openSync, writeSync } from 'node:fs'
import { FRAME_BYTES } from '@tidemark/crypto'
import { KiB, PAGE_BYTES, isNoDirectAccess, pageAligned } from '@tidemark/kernel'

/** Below this a wait for the disk costs more than the copy. */
const WORTH_IT_BYTES = 128 * KiB

/** One for each thread: a frame's buffer, and whether direct writes work here. */
export class DirectWrites {
  readonly #staging: Uint8Array
  #works = true

  /** @param staging what is written is put there first; for tests. */
  constructor(staging: Uint8Array = pageAligned(FRAME_BYTES)) {
    this.#staging = staging
  }

  /** False once it was found out that they do not. */
  get works(): boolean {
    return this.#works
  }

  /** The part of a write that can go directly: whole pages of the file. Undefined where it is not worth it. */
  partOf(offset: number, length: number): { readonly skip: number; readonly bytes: number } | undefined {
    if (!this.#works) return undefined
    const skip = (PAGE_BYTES - (offset % PAGE_BYTES)) % PAGE_BYTES
    const bytes = Math.min(length - skip, this.#staging.length)
    const whole = bytes - (bytes % PAGE_BYTES)
    return whole < WORTH_IT_BYTES ? undefined : { skip, bytes: whole }
  }

  /** A descriptor for `write`; undefined where this file system has none to give. */
  open(path: string | Buffer): number | undefined {
    return this.#unlessImpossible(() => openSync(path, constants.O_WRONLY | constants.O_NOFOLLOW | constants.O_DIRECT))
  }

  /** @returns how many bytes were written, from the beginning; the caller writes the others in the ordinary way. */
  write(descriptor: number, bytes: Uint8Array, offset: number): number {
    const { length } = bytes
    this.#staging.set(bytes)
    return this.#unlessImpossible(() => writeSync(descriptor, this.#staging, 0, length, offset)) ?? 0
  }

  #unlessImpossible<T>(action: () => T): T | undefined {
    try {
      return action()
    } catch (error) {
      if (!isNoDirectAccess(error)) throw error
      this.#works = false
      return undefined
    }
  }
}

/** Descriptors by file, opened when they are first asked for and closed together. */
export class Descriptors implements Disposable {
  readonly #open: (file: number) => number | undefined
  readonly #most: number
  readonly #descriptors = new Map<number, number>()

  /** @param most held open at once. */
  constructor(open: (file: number) => number | undefined, most: number) {
    this.#open = open
    this.#most = most
  }

  get(file: number): number | undefined {
    const known = this.#descriptors.get(file)
    if (known !== undefined) return known
    if (this.#descriptors.size >= this.#most) this[Symbol.dispose]()
    const opened = this.#open(file)
    if (opened !== undefined) this.#descriptors.set(file, opened)
    return opened
  }

  [Symbol.dispose](): void {
    for (const descriptor of this.#descriptors.values()) closeSync(descriptor)
    this.#descriptors.clear()
  }
}
