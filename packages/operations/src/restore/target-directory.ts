/**
 * The directory a cluster is restored into, and those of its tablespaces.
 *
 * States: *claimed* (a fence file says 'incomplete', the locks are held) → *ready* (the fence says so: everything is durable, pg_control may
 * get its name) → *complete* (the fence says so; the server may start) or *kept* (given up; the fence says 'incomplete', and another restore
 * may take it up) or *discarded* (as it was before). pg_control comes last and under another name until then: a directory that is neither
 * ready nor complete does not start. As root all of it is root's until it is left.
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
  symlink,
} from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { OperationalError } from '@tidemark/kernel'
import { TargetInUseError, TargetNotEmptyError, TargetWriteError } from '../errors.ts'
import type { Place } from './directory-identity.ts'
import { type Owner, type TargetFacts, type TargetMode, inspectTarget } from './target-facts.ts'
import { LOCK_FILE, TargetLock } from './target-lock.ts'
import { FENCE, TABLESPACE_FENCE, type TargetMarker, placeMarker, unfinished } from './target-marker.ts'
import { ClaimedTablespace, type TargetTablespace } from './tablespace-claim.ts'
import { refuseMountsBelow } from './target-ground.ts'
import { type TargetPaths, absolutePath, pathBytes } from './target-paths.ts'
import { TargetRoot } from './target-root.ts'

export type { Owner } from './target-facts.ts'
export { FENCE } from './target-marker.ts'

export const CONTROL_FILE = 'global/pg_control'
export const CONTROL_FILE_WAITING = 'global/pg_control.tidemark'

const DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW

export interface ClaimOptions {
  readonly owner: Owner | undefined
  readonly mode: TargetMode
  /** As the plan found it. */
  readonly place: Place
  readonly tablespaces: readonly TargetTablespace[]
  readonly fence: Omit<TargetMarker, 'state' | 'ready' | 'directory' | 'tablespaces' | 'owner'>
}

export class TargetDirectory {
  readonly path: string
  readonly owner: Owner | undefined
  readonly #root: TargetRoot
  readonly #fence: Omit<TargetMarker, 'state'>
  readonly #tablespaces: ClaimedTablespace[] = []
  readonly #directories: { readonly relative: string; readonly mode: number }[] = []
  #lock: TargetLock | undefined
  #ready = false
  #complete = false

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
   *   @throws {TablespaceMappingError} @throws {TargetWriteError}: nothing was changed.
   */
  static async claim(path: string, options: ClaimOptions): Promise<TargetDirectory> {
    const { owner, mode, fence } = options
    const facts = await inspectTarget(path, owner, mode)
    const root = await TargetRoot.take(path, facts.owner, options.place)
    try {
      const directory = { path, inode: await root.inode() }
      const target = new TargetDirectory(root, {
        ...fence,
        directory,
        tablespaces: Object.fromEntries(options.tablespaces.map((tablespace) => [tablespace.oid, tablespace.path])),
        ...(facts.owner === undefined ? {} : { owner: facts.owner }),
      })
      await (mode === 'new' ? target.#fenceNew(options) : target.#takeUp(options, facts))
      return target
    } catch (error) {
      await root.release().catch(() => {})
      throw error
    }
  }

  /** Everything is in place but, maybe, the name of pg_control: an earlier restore had come that far. */
  get isReady(): boolean {
    return this.#ready
  }

  /** The fence says so, and the server may start, whatever failed afterwards. */
  get isComplete(): boolean {
    return this.#complete
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

  /** Before anything is taken away: another file system may have been mounted since the claim. @throws {TargetUnusableError} */
  async refuseMounts(): Promise<void> {
    for (const root of [this.#root, ...this.#tablespaces.map((tablespace) => tablespace.root)])
      await refuseMountsBelow(await root.realPath(), root.path)
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

  /**
   * Gives pg_control its name and says that the directory is whole, who made it and from what.
   *
   * The fence says 'ready' in between: whoever finds it so has nothing left to copy, and must not, since a server may have run here. What fails
   * after the last word leaves it whole, which isComplete tells. Until then all stays root's: what fails before may have to be taken away.
   */
  async complete(finishedAt: string): Promise<void> {
    if (!this.#ready) {
      await this.#writeFence({ state: 'incomplete', ready: true, ...this.#fence })
      this.#ready = true
    }
    if (!(await this.#isFile(CONTROL_FILE))) await this.promote(CONTROL_FILE_WAITING, CONTROL_FILE)
    await this.#renameFence({ state: 'complete', ...this.#fence, finishedAt })
    this.#complete = true
    await this.#guard(FENCE, () => this.#root.sync())
    await this.#giveBack()
  }

  /** The bytes of a file that this restore has written. */
  async readFile(relative: string): Promise<Buffer> {
    return readFile(pathBytes(this.absolute(relative)))
  }

  /**
   * Leaves what is there for a restore that takes it up again. pg_control waits under its other name: nothing starts here. One that is
   * complete stays so.
   */
  async keep(): Promise<void> {
    if (!this.#root.isHeld) return
    try {
      if (this.#complete) return
      await this.#hideControlFile()
      for (const { relative, mode } of this.#directories.toReversed())
        await this.#handOver(relative, mode).catch(() => {})
    } finally {
      await this.#giveBack()
    }
  }

  /** Takes away everything: the directory was empty, or was not there. pg_control goes first: no half starts. One that is complete stays. */
  async discard(): Promise<void> {
    if (this.#complete || !this.#root.isHeld) return await this.keep()
    await rm(this.join(CONTROL_FILE), { force: true })
    for (const tablespace of this.#tablespaces) if (tablespace.root.isHeld) await tablespace.discard()
    await this.#root.clear(FENCE)
    await rm(this.join(FENCE), { force: true })
    await this.#root.release()
  }

  async #fenceNew({ tablespaces, mode }: ClaimOptions): Promise<void> {
    const marker = { state: 'incomplete', ...this.#fence } as const
    const placed = await this.#guard(FENCE, () => placeMarker(this.#root.base, FENCE, marker, this.owner))
    if (!placed) throw new TargetNotEmptyError(this.path, FENCE)
    try {
      // Somebody may have put something there between the look and the fence.
      const found = (await readdir(this.#root.base)).find((name) => name !== FENCE)
      if (found !== undefined) throw new TargetNotEmptyError(this.path, found)
      this.#lock = await TargetLock.acquire(this.#root.base, this.path)
      await this.#root.sync()
      await this.#claimTablespaces(tablespaces, mode)
    } catch (error) {
      await this.#lock?.release().catch(() => {})
      await rm(this.join(FENCE), { force: true }).catch(() => {})
      throw error instanceof OperationalError ? error : new TargetWriteError(this.path, error)
    }
  }

  /**
   * The lock first: from then on no server and no other restore is in it. Then nothing starts here any more, and only then does the fence say
   * so. One that is ready stays as it is.
   */
  async #takeUp({ tablespaces, mode }: ClaimOptions, { marker }: TargetFacts): Promise<void> {
    const lock = await TargetLock.acquire(this.#root.base, this.path)
    let [hidden, fenced] = [false, false]
    try {
      await this.#claimTablespaces(tablespaces, mode)
      this.#ready = mode === 'resume' && this.#isFinishedBy(marker) && (await this.#hasControlFile())
      if (!this.#ready) {
        hidden = await this.#guard(CONTROL_FILE, () => this.#hideControlFile())
        await this.#writeFence({ state: 'incomplete', ...this.#fence })
        fenced = true
      }
      // A server that was starting as the lock was taken may have removed it, and read pg_control before that was hidden.
      if (!(await lock.holds())) throw new TargetInUseError(this.path, undefined)
      this.#lock = lock
    } catch (error) {
      // Nothing was written yet: what could start before may do so again.
      if (hidden) await rename(this.join(CONTROL_FILE_WAITING), this.join(CONTROL_FILE)).catch(() => {})
      if (fenced && marker !== undefined) await this.#writeFence(marker).catch(() => {})
      for (const tablespace of this.#tablespaces) await tablespace.release().catch(() => {})
      await lock.release().catch(() => {})
      throw error
    }
  }

  async #claimTablespaces(tablespaces: readonly TargetTablespace[], mode: TargetMode): Promise<void> {
    try {
      for (const tablespace of tablespaces)
        this.#tablespaces.push(await ClaimedTablespace.take(tablespace, this.#fence.directory, mode, this.owner))
    } catch (error) {
      for (const claimed of this.#tablespaces.splice(0)) await claimed.release().catch(() => {})
      throw error
    }
  }

  /** Whether the restore that wrote the marker has laid out what this one would. */
  #isFinishedBy(marker: TargetMarker | undefined): boolean {
    const { backupId, profile } = this.#fence
    return marker?.ready === true && marker.backupId === backupId && marker.profile === profile
  }

  /** Under either name, and not behind a link. */
  async #hasControlFile(): Promise<boolean> {
    const folder = await lstat(this.join(dirname(CONTROL_FILE))).catch(() => undefined)
    if (folder?.isDirectory() !== true) return false
    return (await this.#isFile(CONTROL_FILE)) || (await this.#isFile(CONTROL_FILE_WAITING))
  }

  async #isFile(relative: string): Promise<boolean> {
    return (await lstat(this.join(relative)).catch(() => undefined))?.isFile() === true
  }

  /** @returns whether there was one under its own name. */
  async #hideControlFile(): Promise<boolean> {
    // A link in its place would have us rename somebody else's; whoever planted it cannot change it any more.
    const found = await lstat(this.join('global')).catch(() => undefined)
    if (found?.isDirectory() !== true) return false
    const hidden = await rename(this.join(CONTROL_FILE), this.join(CONTROL_FILE_WAITING)).then(
      () => true,
      (error: NodeJS.ErrnoException) => {
        if (error.code !== 'ENOENT') throw error
        return false
      },
    )
    await using folder = await open(this.join('global'), 'r').catch(() => undefined)
    await folder?.sync()
    return hidden
  }

  async #writeFence(marker: TargetMarker): Promise<void> {
    await this.#renameFence(marker)
    await this.#guard(FENCE, () => this.#root.sync())
  }

  async #renameFence(marker: TargetMarker): Promise<void> {
    const temporary = unfinished(FENCE)
    await this.#guard(temporary, () => rm(this.join(temporary), { force: true }))
    await this.writeFile(temporary, Buffer.from(`${JSON.stringify(marker)}\n`))
    await this.#guard(FENCE, () => rename(this.join(temporary), this.join(FENCE)))
  }

  /** Whatever fails, all of it is given back; the data directory last, since a server may start from then on. */
  async #giveBack(): Promise<void> {
    const failures: unknown[] = []
    const lock = this.#lock
    if (lock !== undefined && this.#root.isHeld)
      await this.#guard(LOCK_FILE, () => lock.release()).catch((error: unknown) => failures.push(error))
    for (const root of [...this.#tablespaces.map((tablespace) => tablespace.root), this.#root])
      await root.giveBack().catch((error: unknown) => failures.push(new TargetWriteError(root.path, error)))
    if (failures.length > 0) throw failures[0]
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
export const OF_THE_RESTORE: ReadonlySet<string> = new Set([FENCE, unfinished(FENCE), LOCK_FILE])

/** The same in a tablespace, as the file list would name it. */
export function ofTheTablespace(oid: string): string {
  return `pg_tblspc/${oid}/${TABLESPACE_FENCE}`
}
