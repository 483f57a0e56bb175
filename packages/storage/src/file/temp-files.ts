import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, open, lstat, mkdir, readdir, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { MiB, PAGE_BYTES, isNoDirectAccess, isPageAligned, throwIfAborted } from '@tidemark/kernel'
import { SCRATCH_PART } from '../object-name.ts'
import { errnoOf } from './translate-file-error.ts'

const STALE_MS = 24 * 3600_000
const CHUNK_BYTES = 4 * MiB
const DIRECT_FROM_BYTES = 1 * MiB

/**
 * The folder `.tmp` in the root of a file store: objects are complete and synced here before they get
 * their name, on the same file system.
 *
 * It is made when the store is opened and never later: where it has gone, the disk has been unmounted
 * or exchanged, and writing on would fill whatever lies below the mount point.
 */
export class TempFiles {
  readonly #folder: string
  #refused: unknown
  #direct = true

  constructor(root: string) {
    this.#folder = join(root, SCRATCH_PART)
  }

  /** Makes the folder and removes what writers that died left there more than a day ago, by the file system's clock. */
  async open(): Promise<void> {
    try {
      await mkdir(this.#folder, { mode: 0o700 })
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') {
        this.#refused = error
        throw error
      }
    }
    const names = await readdir(this.#folder)
    const nowMs = names.length === 0 ? undefined : await this.#nowMs()
    if (nowMs === undefined) return
    for (const name of names) {
      const path = join(this.#folder, name)
      const { mtimeMs } = await lstat(path).catch(() => ({ mtimeMs: Number.POSITIVE_INFINITY }))
      if (nowMs - mtimeMs > STALE_MS) await unlink(path).catch(() => {})
    }
  }

  /** The time that an empty file gets; undefined where none can be made, and then nothing is known to be old. */
  async #nowMs(): Promise<number | undefined> {
    const path = this.#freshPath()
    try {
      await using file = await open(path, 'wx', 0o600)
      return (await file.stat()).mtimeMs
    } catch {
      return undefined
    } finally {
      await unlink(path).catch(() => {})
    }
  }

  #freshPath(): string {
    return join(this.#folder, `${process.pid}-${randomBytes(8).toString('hex')}`)
  }

  /** What the file system's clock says: the modification time that a file written now gets. */
  async time(signal: AbortSignal): Promise<Date> {
    const path = await this.write(Buffer.from('now'), signal)
    try {
      return (await lstat(path)).mtime
    } finally {
      await unlink(path)
    }
  }

  /** Writes and syncs `bytes`; resolves to the path. Leaves nothing when it fails or `signal` fires. */
  async write(bytes: Uint8Array, signal: AbortSignal): Promise<string> {
    // Opened for reading only: the reason then is the reason now, not that the folder is missing.
    if (this.#refused !== undefined) throw this.#refused
    const path = this.#freshPath()
    try {
      const direct = await this.#writeDirectly(path, bytes, signal)
      await using file = await open(path, direct === undefined ? 'wx' : 'r+', 0o600)
      await writeAll(file, bytes, direct ?? 0, bytes.length, signal)
      throwIfAborted(signal, 'writing')
      await file.sync()
      throwIfAborted(signal, 'writing')
    } catch (error) {
      await unlink(path).catch(() => {})
      throw error
    }
    return path
  }

  /**
   * Whole pages of a large object go past the page cache: nobody reads them soon, and a database that runs on this host wants the cache
   * (docs/adr/0012-direct-io.md).
   *
   * @returns how many bytes the new file has now; undefined where the object is not for this, and there is no file yet.
   */
  async #writeDirectly(path: string, bytes: Uint8Array, signal: AbortSignal): Promise<number | undefined> {
    if (!this.#direct || bytes.length < DIRECT_FROM_BYTES || !isPageAligned(bytes)) return undefined
    const pages = bytes.length - (bytes.length % PAGE_BYTES)
    try {
      const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_DIRECT
      await using file = await open(path, flags, 0o600)
      await writeAll(file, bytes, 0, pages, signal)
      return pages
    } catch (error) {
      if (!isNoDirectAccess(error)) throw error
      // A file may have been made all the same.
      this.#direct = false
      await unlink(path).catch(() => {})
      return undefined
    }
  }
}

async function writeAll(
  file: FileHandle,
  bytes: Uint8Array,
  from: number,
  to: number,
  signal: AbortSignal,
): Promise<void> {
  for (let offset = from; offset < to;) {
    throwIfAborted(signal, 'writing')
    const length = Math.min(CHUNK_BYTES, to - offset)
    offset += (await file.write(bytes, offset, length, offset)).bytesWritten
  }
}
