/**
 * The directory a cluster is restored into.
 *
 * A fence file, made with O_EXCL, keeps a second restore out and says that the directory is not complete. pg_control comes
 * last and under a temporary name: until then PostgreSQL refuses to start here. A restore that fails takes away what it made,
 * so that the next one finds the directory empty again; only a killed one leaves the fence.
 */
import { constants } from 'node:fs'
import {
  type FileHandle,
  chmod,
  lchown,
  lstat,
  mkdir,
  open,
  readFile,
  readdir,
  rename,
  rm,
  rmdir,
  statfs,
} from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { TargetNotEmptyError, TargetUnusableError, TargetWriteError } from '../errors.ts'

export const FENCE = 'tidemark_restore.json'

export interface Owner {
  readonly uid: number
  readonly gid: number
}

export interface TargetFacts {
  readonly exists: boolean
  readonly freeBytes: number
  /** Whom the files must belong to; undefined where this process makes them its own. */
  readonly owner: Owner | undefined
}

/**
 * Looks, changes nothing.
 *
 * @param owner asked for by name; else, as root, the owner of the directory (or of its parent where it is to be made).
 * @throws {TargetNotEmptyError} @throws {TargetUnusableError}
 */
export async function inspectTarget(directory: string, owner: Owner | undefined): Promise<TargetFacts> {
  const parent = dirname(directory)
  const target = await lstat(directory).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw new TargetUnusableError(
      directory,
      String(error.code),
      'check the path and the rights of the folders above it',
      error,
    )
  })
  if (target === undefined) {
    const above = await lstat(parent).catch((error: unknown) => {
      throw new TargetUnusableError(directory, `${parent} does not exist`, 'make the folder above it first', error)
    })
    if (!above.isDirectory() && !above.isSymbolicLink())
      throw new TargetUnusableError(directory, `${parent} is no directory`, 'name another path')
    return { exists: false, freeBytes: await freeBytes(parent), owner: ownerFor(directory, above, owner) }
  }
  if (!target.isDirectory()) throw new TargetNotEmptyError(directory, 'a file or link of that name')
  const [first] = await readdir(directory).catch((error: NodeJS.ErrnoException) => {
    throw new TargetUnusableError(
      directory,
      String(error.code),
      'run the restore as the user who owns it, or as root',
      error,
    )
  })
  if (first !== undefined) throw new TargetNotEmptyError(directory, first)
  return { exists: true, freeBytes: await freeBytes(directory), owner: ownerFor(directory, target, owner) }
}

async function freeBytes(directory: string): Promise<number> {
  const { bavail, bsize } = await statfs(directory)
  return bavail * bsize
}

function ownerFor(directory: string, found: { uid: number; gid: number }, asked: Owner | undefined): Owner | undefined {
  if (process.getuid?.() !== 0) return undefined
  const owner = asked ?? { uid: found.uid, gid: found.gid }
  if (owner.uid === 0) {
    throw new TargetUnusableError(
      directory,
      'it would belong to root, and PostgreSQL does not run as root',
      "make the directory and give it to the server's user first (install -d -o postgres -g postgres -m 700 …), or pass --owner",
    )
  }
  return owner
}

export class TargetDirectory {
  readonly path: string
  readonly owner: Owner | undefined
  readonly #existed: boolean
  readonly #directories: string[] = []
  /** Modes that keep even the owner from writing; set once the contents are there. */
  readonly #finalModes = new Map<string, number>()
  /** As root: the directory itself, so that nobody who may rename what lies above it can lead us elsewhere. */
  #handle: FileHandle | undefined

  private constructor(path: string, facts: TargetFacts) {
    this.path = path
    this.owner = facts.owner
    this.#existed = facts.exists
  }

  /**
   * Makes the directory where needed and fences it.
   *
   * As root, it stays root's alone until it is complete: a restore must not follow links that its future owner plants in it.
   *
   * @throws {TargetNotEmptyError} another restore was first. @throws {TargetUnusableError}
   */
  static async claim(path: string, owner: Owner | undefined, fence: object): Promise<TargetDirectory> {
    const facts = await inspectTarget(path, owner)
    const target = new TargetDirectory(path, facts)
    if (!facts.exists) await mkdir(path, { mode: 0o700 })
    await target.#takeOver()
    const handle = await open(target.#join(FENCE), 'wx', 0o600).catch(async (error: NodeJS.ErrnoException) => {
      await target.#giveBack()
      if (error.code === 'EEXIST') throw new TargetNotEmptyError(path, FENCE)
      throw new TargetUnusableError(path, String(error.code), 'check its rights', error)
    })
    await using fenceFile = handle
    await fenceFile.writeFile(`${JSON.stringify({ state: 'incomplete', ...fence })}\n`)
    await fenceFile.sync()
    // Somebody may have put something there between the look and the fence.
    const found = (await readdir(target.#base)).find((name) => name !== FENCE)
    if (found !== undefined) {
      await rm(target.#join(FENCE))
      await target.#giveBack()
      throw new TargetNotEmptyError(path, found)
    }
    return target
  }

  /** @param relative one character per byte, as in the file list. */
  absolute(relative: string): string {
    return `${Buffer.from(this.#base).toString('latin1')}/${relative}`
  }

  async makeDirectory(relative: string, mode: number): Promise<void> {
    const path = Buffer.from(this.absolute(relative), 'latin1')
    await this.#guard(relative, async () => {
      await mkdir(path)
      await chmod(path, mode | 0o700)
      if (this.owner !== undefined) await lchown(path, this.owner.uid, this.owner.gid)
    })
    this.#directories.push(relative)
  }

  /** An empty file of the given size: what no extent covers reads as zeros. */
  async makeFile(relative: string, mode: number, size: number): Promise<void> {
    await this.#guard(relative, async () => {
      await using handle = await this.#create(relative, mode | 0o600)
      if (size > 0) await handle.truncate(size)
    })
    if ((mode & 0o600) !== 0o600) this.#finalModes.set(relative, mode)
  }

  async writeFile(relative: string, bytes: Uint8Array, mode = 0o600): Promise<void> {
    await this.#guard(relative, async () => {
      await using handle = await this.#create(relative, mode)
      await handle.writeFile(bytes)
      await handle.sync()
    })
  }

  async sync(relative: string): Promise<void> {
    await this.#guard(relative, async () => {
      await using handle = await open(
        Buffer.from(this.absolute(relative), 'latin1'),
        constants.O_RDONLY | constants.O_NOFOLLOW,
      )
      const mode = this.#finalModes.get(relative)
      if (mode !== undefined) await handle.chmod(mode)
      await handle.sync()
    })
  }

  async syncDirectories(): Promise<void> {
    for (const relative of this.#directories.toReversed()) await this.sync(relative)
    await this.#syncRoot()
  }

  /** Moves a finished file to the name that counts. */
  async promote(from: string, to: string): Promise<void> {
    await this.#guard(to, async () => {
      await rename(Buffer.from(this.absolute(from), 'latin1'), Buffer.from(this.absolute(to), 'latin1'))
      if (to.includes('/')) await this.sync(dirname(to))
      else await this.#syncRoot()
    })
  }

  /** Replaces the fence: from now on the directory is whole. It says who made it and from what. */
  async complete(report: object): Promise<void> {
    const temporary = `${FENCE}.tmp`
    await this.writeFile(temporary, Buffer.from(`${JSON.stringify({ state: 'complete', ...report })}\n`))
    await rename(this.#join(temporary), this.#join(FENCE))
    await this.#syncRoot()
    await this.#giveBack()
  }

  /** The bytes of a file that this restore has written. */
  async readFile(relative: string): Promise<Buffer> {
    return readFile(Buffer.from(this.absolute(relative), 'latin1'))
  }

  /** Takes away everything this restore made: the directory was empty, or was not there. pg_control goes first: no half starts. */
  async discard(): Promise<void> {
    await rm(this.#join('global/pg_control'), { force: true })
    for (const name of await readdir(this.#base)) {
      if (name !== FENCE) await rm(this.#join(name), { recursive: true, force: true })
    }
    await rm(this.#join(FENCE), { force: true })
    await this.#giveBack()
    if (!this.#existed) await rmdir(this.path)
  }

  get #base(): string {
    return this.#handle === undefined ? this.path : `/proc/self/fd/${this.#handle.fd}`
  }

  #join(name: string): string {
    return `${this.#base}/${name}`
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

  /** The directory itself is given away last; what lies in it has its owner already. */
  async #giveBack(): Promise<void> {
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

  async #syncRoot(): Promise<void> {
    await using root = await open(this.#base, 'r')
    await root.sync()
    await using parent = await open(dirname(this.path), 'r').catch(() => undefined)
    // A parent that may not be read may not be synced either; its entry is then the file system's promise.
    await parent?.sync().catch(() => {})
  }

  async #create(relative: string, mode: number): Promise<FileHandle> {
    const flags = constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY | constants.O_NOFOLLOW
    const handle = await open(Buffer.from(this.absolute(relative), 'latin1'), flags, mode)
    try {
      await handle.chmod(mode)
      if (this.owner !== undefined) await handle.chown(this.owner.uid, this.owner.gid)
      return handle
    } catch (error) {
      await handle.close()
      throw error
    }
  }

  async #guard<T>(relative: string, action: () => Promise<T>): Promise<T> {
    try {
      return await action()
    } catch (cause) {
      if (cause instanceof TargetWriteError) throw cause
      throw new TargetWriteError(join(this.path, basename(relative) === '.' ? '' : relative), cause)
    }
  }
}
