/**
 * The directory a cluster is restored into, and those of its tablespaces.
 *
 * States: *claimed* (a fence file says 'incomplete', the lock is held) → *complete* (the fence says so; the server may start) or *kept*
 * (given up; the fence says 'incomplete', and another restore may take it up) or *discarded* (as it was before). pg_control comes last and
 * under another name until then: a directory that is not complete does not start. As root all of it is root's until it is left.
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
  stat,
  symlink,
} from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { TargetNotEmptyError, TargetUnusableError, TargetWriteError } from '../errors.ts'
import { type Owner, type TargetFacts, type TargetMode, inspectTarget } from './target-facts.ts'
import { LOCK_FILE, acquireLock, releaseLock } from './target-lock.ts'
import { FENCE, type TargetMarker } from './target-marker.ts'
import { type TargetPaths, absolutePath, pathBytes } from './target-paths.ts'
import { TargetRoot } from './target-root.ts'

export type { Owner } from './target-facts.ts'
export { FENCE } from './target-marker.ts'

export const CONTROL_FILE = 'global/pg_control'
export const CONTROL_FILE_WAITING = 'global/pg_control.tidemark'

const DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW

export interface TargetTablespace {
  readonly oid: string
  /** Absolute; where its files go. */
  readonly path: string
  readonly exists: boolean
  /** Linked from pg_tblspc; else it is an empty directory that the server will want as it recovers. */
  readonly linked: boolean
}

export interface ClaimOptions {
  readonly owner: Owner | undefined
  readonly mode: TargetMode
  readonly tablespaces: readonly TargetTablespace[]
  readonly fence: Omit<TargetMarker, 'state' | 'directory' | 'tablespaces' | 'owner'>
}

export class TargetDirectory {
  readonly path: string
  readonly owner: Owner | undefined
  readonly #root: TargetRoot
  readonly #fence: Omit<TargetMarker, 'state'>
  readonly #tablespaces: { readonly oid: string; readonly root: TargetRoot; readonly linked: boolean }[] = []
  readonly #directories: { readonly relative: string; readonly mode: number }[] = []

  private constructor(root: TargetRoot, fence: Omit<TargetMarker, 'state'>) {
    this.path = root.path
    this.owner = root.owner
    this.#root = root
    this.#fence = fence
  }

  /**
   * Makes the directories where needed, fences and locks them.
   *
   * @throws {TargetNotEmptyError} another restore was first. @throws {TargetUnusableError} @throws {TargetInUseError} @throws {TargetNotResumableError}
   */
  static async claim(path: string, options: ClaimOptions): Promise<TargetDirectory> {
    const { owner, mode, fence } = options
    const facts = await inspectTarget(path, owner, mode)
    const root = await TargetRoot.take(path, facts.owner, facts.exists)
    const tablespaces = Object.fromEntries(options.tablespaces.map((tablespace) => [tablespace.oid, tablespace.path]))
    const { ino } = await stat(root.base)
    const target = new TargetDirectory(root, {
      ...fence,
      directory: { path, inode: ino },
      tablespaces,
      ...(facts.owner === undefined ? {} : { owner: facts.owner }),
    })
    try {
      if (mode === 'new') await target.#fenceNew(facts)
      else await target.#takeUp()
    } catch (error) {
      await root.giveBack()
      throw error
    }
    try {
      for (const tablespace of options.tablespaces) {
        const taken = await TargetRoot.take(tablespace.path, facts.owner, tablespace.exists)
        target.#tablespaces.push({ oid: tablespace.oid, root: taken, linked: tablespace.linked })
      }
    } catch (error) {
      await (mode === 'new' ? target.discard() : target.keep())
      throw error
    }
    return target
  }

  get paths(): TargetPaths {
    return {
      base: latin1(this.#root.base),
      tablespaces: Object.fromEntries(this.#tablespaces.map(({ oid, root }) => [oid, latin1(root.base)])),
    }
  }

  /** How this process reaches a name of its own in the data directory. */
  join(name: string): string {
    return `${this.#root.base}/${name}`
  }

  /** @param relative one character per byte, as in the file list. */
  absolute(relative: string): string {
    return absolutePath(this.paths, relative)
  }

  /** A directory that may be there already; anything else of its name goes. As root it stays root's until the contents are there. */
  async makeDirectory(relative: string, mode: number): Promise<void> {
    const path = pathBytes(this.absolute(relative))
    await this.#guard(relative, async () => {
      const found = await lstat(path).catch(() => undefined)
      if (found?.isDirectory() !== true) {
        if (found !== undefined) await rm(path, { recursive: true, force: true })
        await mkdir(path)
      }
      await chmod(path, 0o700)
    })
    this.#directories.push({ relative, mode: mode | 0o700 })
  }

  /** Links the tablespaces that lie elsewhere, as the server does; pg_tblspc is there. */
  async linkTablespaces(): Promise<void> {
    for (const { oid, root, linked } of this.#tablespaces) {
      if (!linked) continue
      const link = `${this.#root.base}/pg_tblspc/${oid}`
      await this.#guard(`pg_tblspc/${oid}`, async () => {
        await rm(link, { force: true, recursive: true })
        await symlink(root.path, link)
        if (this.owner !== undefined) await lchown(link, this.owner.uid, this.owner.gid)
      })
    }
  }

  async writeFile(relative: string, bytes: Uint8Array, mode = 0o600): Promise<void> {
    await this.#guard(relative, async () => {
      await using handle = await this.#create(relative, mode)
      await handle.writeFile(bytes)
      await handle.sync()
    })
  }

  /** Directories get their owner and mode, the inner ones first: who owns one can lead us elsewhere from then on. */
  async syncDirectories(): Promise<void> {
    for (const { relative, mode } of this.#directories.toReversed()) await this.#handOver(relative, mode)
    for (const { root } of this.#tablespaces) await root.sync()
    await this.#root.sync()
  }

  /** Moves a finished file to the name that counts. */
  async promote(from: string, to: string): Promise<void> {
    await this.#guard(to, async () => {
      await rename(pathBytes(this.absolute(from)), pathBytes(this.absolute(to)))
      if (to.includes('/')) await this.#syncDirectory(dirname(to))
      else await this.#root.sync()
    })
  }

  /** Replaces the fence: from now on the directory is whole. It says who made it and from what. */
  async complete(finishedAt: string): Promise<void> {
    for (const { root } of this.#tablespaces) await root.giveBack()
    await this.#writeFence({ state: 'complete', ...this.#fence, finishedAt })
    await releaseLock(this.#root.base)
    await this.#root.giveBack()
  }

  /** The bytes of a file that this restore has written. */
  async readFile(relative: string): Promise<Buffer> {
    return readFile(pathBytes(this.absolute(relative)))
  }

  /** Leaves what is there for a restore that takes it up again. pg_control waits under its other name: nothing starts here. */
  async keep(): Promise<void> {
    await this.#hideControlFile()
    for (const { relative, mode } of this.#directories.toReversed())
      await this.#handOver(relative, mode).catch(() => {})
    for (const { root } of this.#tablespaces) await root.giveBack()
    await releaseLock(this.#root.base)
    await this.#root.giveBack()
  }

  /** Takes away everything: the directory was empty, or was not there. pg_control goes first: no half starts. */
  async discard(): Promise<void> {
    await rm(this.join(CONTROL_FILE), { force: true })
    for (const { root } of this.#tablespaces) {
      await root.clear('')
      await root.remove()
    }
    await this.#root.clear(FENCE)
    await rm(this.join(FENCE), { force: true })
    await this.#root.remove()
  }

  async #fenceNew(facts: TargetFacts): Promise<void> {
    const handle = await open(this.join(FENCE), 'wx', 0o600).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'EEXIST') throw new TargetNotEmptyError(this.path, FENCE)
      throw new TargetUnusableError(this.path, String(error.code), 'check its rights', error)
    })
    await using fenceFile = handle
    await fenceFile.writeFile(`${JSON.stringify({ state: 'incomplete', ...this.#fence })}\n`)
    await fenceFile.sync()
    // Somebody may have put something there between the look and the fence.
    const found = (await readdir(this.#root.base)).find((name) => name !== FENCE)
    if (found !== undefined) {
      await rm(this.join(FENCE))
      throw new TargetNotEmptyError(this.path, found)
    }
    try {
      await acquireLock(this.#root.base, this.path)
    } catch (error) {
      await rm(this.join(FENCE))
      throw error
    }
    if (!facts.exists) await this.#root.sync()
  }

  /** The lock first: from then on no server and no other restore is in it. Then nothing starts here any more, and only then does the fence say so. */
  async #takeUp(): Promise<void> {
    await acquireLock(this.#root.base, this.path)
    try {
      await this.#hideControlFile()
      await this.#writeFence({ state: 'incomplete', ...this.#fence })
    } catch (error) {
      await releaseLock(this.#root.base)
      throw new TargetWriteError(this.path, error)
    }
  }

  async #hideControlFile(): Promise<void> {
    // A link in its place would have us rename somebody else's; whoever planted it cannot change it any more.
    const found = await lstat(this.join('global')).catch(() => undefined)
    if (found?.isDirectory() !== true) return
    await rename(this.join(CONTROL_FILE), this.join(CONTROL_FILE_WAITING)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error
    })
    await using folder = await open(this.join('global'), 'r').catch(() => undefined)
    await folder?.sync()
  }

  async #writeFence(marker: TargetMarker): Promise<void> {
    const temporary = `${FENCE}.tmp`
    await rm(this.join(temporary), { force: true })
    await this.writeFile(temporary, Buffer.from(`${JSON.stringify(marker)}\n`))
    await rename(this.join(temporary), this.join(FENCE))
    await this.#root.sync()
  }

  async #handOver(relative: string, mode: number): Promise<void> {
    await this.#guard(relative, async () => {
      await using handle = await open(pathBytes(this.absolute(relative)), DIRECTORY)
      if (this.owner !== undefined) await handle.chown(this.owner.uid, this.owner.gid)
      await handle.chmod(mode)
      await handle.sync()
    })
  }

  async #syncDirectory(relative: string): Promise<void> {
    await using handle = await open(pathBytes(this.absolute(relative)), DIRECTORY)
    await handle.sync()
  }

  async #create(relative: string, mode: number): Promise<FileHandle> {
    const flags = constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY | constants.O_NOFOLLOW
    const handle = await open(pathBytes(this.absolute(relative)), flags, mode)
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
      throw new TargetWriteError(join(this.path, relative), cause)
    }
  }
}

function latin1(path: string): string {
  return Buffer.from(path).toString('latin1')
}

/** Names in the data directory that are this restore's own while it runs. */
export const OF_THE_RESTORE: ReadonlySet<string> = new Set([FENCE, `${FENCE}.tmp`, LOCK_FILE])
