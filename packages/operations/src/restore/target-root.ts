/**
 * One directory that a restore writes into: the data directory, or that of a tablespace.
 *
 * It is the very directory that was looked at, locked against other restores for as long as this one lasts. As root, it stays root's alone
 * until the restore is over, and is reached through a descriptor: its future owner, who may rename what lies above it and plant links in
 * it, cannot lead us elsewhere, nor have us give him what is somebody else's.
 */
import { type BigIntStats, constants } from 'node:fs'
import { type FileHandle, mkdir, open, readdir, readlink, realpath, rm, rmdir } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import { OperationalError } from '@tidemark/kernel'
import { TargetInUseError, TargetUnusableError } from '../errors.ts'
import { lockDescriptor } from '../locks/lock-descriptor.ts'
import { type Place, type SeenDirectory, isSame } from './directory-identity.ts'
import { refuseMountsBelow } from './target-ground.ts'
import type { Owner } from './target-facts.ts'

const DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW
/** Whoever only looks holds the lock for an instant; it may be a long one on a busy machine. */
const LOCK_WAIT_MS = 200

export class TargetRoot {
  readonly path: string
  readonly owner: Owner | undefined
  /** As it was found; undefined where it was made here. */
  readonly #before: BigIntStats | undefined
  readonly #parent: FileHandle | undefined
  #handle: FileHandle | undefined

  private constructor(
    path: string,
    owner: Owner | undefined,
    before: BigIntStats | undefined,
    parent: FileHandle | undefined,
    handle: FileHandle,
  ) {
    this.path = path
    this.owner = owner
    this.#before = before
    this.#parent = parent
    this.#handle = handle
  }

  /**
   * Makes it where needed (folders above it are never made), locks it and takes it over.
   *
   * @param place as the plan found it. Where it, or as root the folder above, is another directory by now, nothing is changed.
   * @throws {TargetUnusableError} @throws {TargetInUseError} another restore is in it.
   */
  static async take(path: string, owner: Owner | undefined, { seen, above }: Place): Promise<TargetRoot> {
    // As root by descriptor: whoever owns what lies above must not move it between the steps.
    const parent =
      owner === undefined ? undefined : await opened(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY)
    let handle: FileHandle | undefined
    let made = false
    const place = parent === undefined ? path : `/proc/self/fd/${parent.fd}/${basename(path)}`
    try {
      if (parent !== undefined && above !== undefined && !isSame(await parent.stat({ bigint: true }), above))
        throw replaced(path)
      if (seen === undefined) {
        await mkdir(place, { mode: 0o700 })
        made = true
      }
      handle = await open(place, DIRECTORY)
      const found = await handle.stat({ bigint: true })
      if (
        seen === undefined
          ? !isJustMade(found, await readdir(parent === undefined ? path : descriptorPath(handle)))
          : !isSame(found, seen)
      )
        throw replaced(path)
      if (!(await lockDescriptor(handle.fd, path, 'exclusive', LOCK_WAIT_MS)))
        throw new TargetInUseError(path, undefined)
      // Only now: whoever held the lock until then may have made it root's for as long.
      const before = await handle.stat({ bigint: true })
      if (owner !== undefined && seen !== undefined && !isOwnedAs(before, seen)) throw replaced(path)
      const root = new TargetRoot(path, owner, seen === undefined ? undefined : before, parent, handle)
      await refuseMountsBelow(await root.realPath(), path)
      await root.#takeOver(handle)
      return root
    } catch (error) {
      await handle?.close()
      if (made) await rmdir(place).catch(() => {})
      await parent?.close()
      if (error instanceof OperationalError) throw error
      const { code } = error as NodeJS.ErrnoException
      if (code === 'EEXIST') throw replaced(path)
      throw new TargetUnusableError(path, String(code), 'check the path and the rights of the folders above it', error)
    }
  }

  /** Whether it is still this restore's: it was neither given back nor released. */
  get isHeld(): boolean {
    return this.#handle !== undefined
  }

  /** How this process reaches it, for as long as it is held: from then on its path may lead anywhere. */
  get base(): string {
    const handle = this.#open()
    return this.owner === undefined ? this.path : descriptorPath(handle)
  }

  /** Where it lies, links resolved. */
  async realPath(): Promise<string> {
    return this.owner === undefined ? await realpath(this.path) : await readlink(this.base)
  }

  /** For a marker. */
  async inode(): Promise<number> {
    return (await this.#open().stat()).ino
  }

  /** It is given away last; what lies in it has its owner already. Doing it twice is no error. */
  async giveBack(): Promise<void> {
    await this.#close(async (handle) => {
      if (this.owner === undefined) return
      await handle.chown(this.owner.uid, this.owner.gid)
      await handle.sync()
    })
  }

  /** As it was found, or gone where it was made here: nothing was written, or it was taken away again. */
  async release(): Promise<void> {
    const { owner } = this
    const place = this.#parent === undefined ? this.path : `/proc/self/fd/${this.#parent.fd}/${basename(this.path)}`
    await this.#close(async (handle) => {
      if (this.#before === undefined) return rmdir(place)
      if (owner === undefined) return
      await handle.chmod(Number(this.#before.mode & 0o7777n))
      await handle.chown(Number(this.#before.uid), Number(this.#before.gid))
    })
  }

  /** Takes away everything in it but `keep`. @throws {TargetUnusableError} another file system is mounted in it; nothing was taken away. */
  async clear(keep: string): Promise<void> {
    await refuseMountsBelow(await this.realPath(), this.path)
    for (const name of await readdir(this.base)) {
      if (name !== keep) await rm(`${this.base}/${name}`, { recursive: true, force: true })
    }
  }

  async sync(): Promise<void> {
    await this.#open().sync()
    if (this.#parent !== undefined) {
      await this.#parent.sync().catch(() => {})
      return
    }
    const flags = constants.O_RDONLY | constants.O_DIRECTORY
    await using parent = await open(dirname(this.path), flags).catch(() => undefined)
    // A parent that may not be read may not be synced either; its entry is then the file system's promise.
    await parent?.sync().catch(() => {})
  }

  async #takeOver(handle: FileHandle): Promise<void> {
    if (this.owner === undefined) return
    try {
      await handle.chown(0, 0)
      await handle.chmod(0o700)
    } catch (error) {
      const hint = 'check the file system and the rights of this process'
      throw new TargetUnusableError(this.path, 'its owner cannot be set', hint, error)
    }
  }

  #open(): FileHandle {
    if (this.#handle === undefined) throw new TypeError(`${this.path} was given back`)
    return this.#handle
  }

  /** With the descriptor goes the lock. */
  async #close(last: (handle: FileHandle) => Promise<void>): Promise<void> {
    const handle = this.#handle
    if (handle === undefined) return
    try {
      await last(handle)
    } finally {
      this.#handle = undefined
      await handle.close()
      await this.#parent?.close()
    }
  }
}

/** Nobody but this process could have made it so: another user's would not be ours, and we have nothing in it. */
function isJustMade({ uid, mode }: BigIntStats, names: readonly string[]): boolean {
  return Number(uid) === process.geteuid?.() && (mode & 0o077n) === 0n && names.length === 0
}

/** The plan judged by owner and mode whether root may go there: who has the directory now must be who had it then. */
function isOwnedAs(found: SeenDirectory, seen: SeenDirectory): boolean {
  return found.uid === seen.uid && found.mode === seen.mode
}

function replaced(path: string): TargetUnusableError {
  return new TargetUnusableError(
    path,
    'it is not the directory that was looked at',
    'see who works there, and try again',
  )
}

async function opened(path: string, flags: number): Promise<FileHandle> {
  return await open(path, flags).catch((error: NodeJS.ErrnoException) => {
    throw new TargetUnusableError(
      path,
      String(error.code),
      'check the path and the rights of the folders above it',
      error,
    )
  })
}

function descriptorPath({ fd }: FileHandle): string {
  return `/proc/self/fd/${fd}`
}
