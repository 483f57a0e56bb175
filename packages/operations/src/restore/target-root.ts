/**
 * One directory that a restore writes into: the data directory, or that of a tablespace.
 *
 * As root, it stays root's alone until the restore is over, and is reached through a descriptor: its future owner, who may rename what lies
 * above it and plant links in it, cannot lead us elsewhere.
 */
import { constants } from 'node:fs'
import { type FileHandle, mkdir, open, readdir, rm, rmdir } from 'node:fs/promises'
import { dirname } from 'node:path'
import { TargetUnusableError } from '../errors.ts'
import type { Owner } from './target-facts.ts'

export class TargetRoot {
  readonly path: string
  readonly owner: Owner | undefined
  readonly #existed: boolean
  #handle: FileHandle | undefined

  private constructor(path: string, owner: Owner | undefined, existed: boolean) {
    this.path = path
    this.owner = owner
    this.#existed = existed
  }

  /** Makes it where needed (folders above it are never made) and takes it over. @throws {TargetUnusableError} */
  static async take(path: string, owner: Owner | undefined, exists: boolean): Promise<TargetRoot> {
    const root = new TargetRoot(path, owner, exists)
    try {
      if (!exists) await mkdir(path, { mode: 0o700 })
      await root.#takeOver()
    } catch (error) {
      if (error instanceof TargetUnusableError) throw error
      const { code } = error as NodeJS.ErrnoException
      throw new TargetUnusableError(path, String(code), 'check the path and the rights of the folders above it', error)
    }
    return root
  }

  /** How this process reaches it. */
  get base(): string {
    return this.#handle === undefined ? this.path : `/proc/self/fd/${this.#handle.fd}`
  }

  /** It is given away last; what lies in it has its owner already. Doing it twice is no error. */
  async giveBack(): Promise<void> {
    const handle = this.#handle
    this.#handle = undefined
    if (handle === undefined || this.owner === undefined) return
    try {
      await handle.chown(this.owner.uid, this.owner.gid)
      await handle.sync()
    } finally {
      await handle.close()
    }
  }

  /** Takes away everything in it but `keep`. */
  async clear(keep: string): Promise<void> {
    for (const name of await readdir(this.base)) {
      if (name !== keep) await rm(`${this.base}/${name}`, { recursive: true, force: true })
    }
  }

  /** Gives it back, or takes it away where it was not there before; it must be empty then. */
  async remove(): Promise<void> {
    await this.giveBack()
    if (!this.#existed) await rmdir(this.path)
  }

  async sync(): Promise<void> {
    await using root = await open(this.base, 'r')
    await root.sync()
    await using parent = await open(dirname(this.path), 'r').catch(() => undefined)
    // A parent that may not be read may not be synced either; its entry is then the file system's promise.
    await parent?.sync().catch(() => {})
  }

  async #takeOver(): Promise<void> {
    if (this.owner === undefined) return
    const handle = await open(this.path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW)
    try {
      await handle.chown(0, 0)
      await handle.chmod(0o700)
    } catch (error) {
      await handle.close()
      throw new TargetUnusableError(
        this.path,
        'its owner cannot be set',
        'check the file system and the rights of this process',
        error,
      )
    }
    this.#handle = handle
  }
}
