import { randomBytes } from 'node:crypto'
import { open, lstat, mkdir, readdir, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { throwIfAborted, MiB } from '@tidemark/kernel'
import { SCRATCH_PART } from '../object-name.ts'
import { errnoOf } from './translate-file-error.ts'

const STALE_MS = 24 * 3600_000
const CHUNK_BYTES = 4 * MiB

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
    const file = await open(path, 'wx', 0o600)
    try {
      try {
        for (let offset = 0; offset < bytes.length;) {
          throwIfAborted(signal, 'writing')
          const length = Math.min(CHUNK_BYTES, bytes.length - offset)
          offset += (await file.write(bytes, offset, length)).bytesWritten
        }
        throwIfAborted(signal, 'writing')
        await file.sync()
        throwIfAborted(signal, 'writing')
      } finally {
        await file.close()
      }
    } catch (error) {
      await unlink(path).catch(() => {})
      throw error
    }
    return path
  }
}
