/**
 * Objects as files below one folder: `file:///srv/tidemark` keeps `wal/1/x` in `/srv/tidemark/wal/1/x`.
 *
 * A file gets its name only when it is complete and synced; then its folder is synced too. Symbolic links
 * below the root are refused, hidden or other foreign names passed over. The root is never made on the
 * way (only with `create`), because an unmounted disk looks like an empty folder.
 */
import { constants } from 'node:fs'
import { link, lstat, mkdir, open, realpath, rename, unlink, type FileHandle } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import {
  MiB,
  OperationalError,
  PAGE_BYTES,
  isNoDirectAccess,
  isPageAligned,
  randomId,
  systemClock,
  throwIfAborted,
} from '@tidemark/kernel'
import type { Clock, Logger } from '@tidemark/kernel'
import { withDeadline } from '../deadline.ts'
import { ObjectNotFoundError, ObjectTooLargeError } from '../errors.ts'
import { checkFolder, checkObjectName, checkPrefix } from '../object-name.ts'
import type {
  GetOptions,
  ListOptions,
  ObjectEntry,
  ObjectName,
  ObjectStore,
  PutOptions,
  StoreCapabilities,
} from '../object-store.ts'
import { bufferFor, getBound } from '../object-store.ts'
import { DurableFolders, syncFolder } from './durable-folder.ts'
import { TempFiles } from './temp-files.ts'
import { errnoOf, translateFileError } from './translate-file-error.ts'
import { symbolicLink, walk, walkFolders } from './walk.ts'

export interface FileObjectStoreOptions {
  readonly clock?: Clock
  readonly logger?: Logger
  /** Make the root folder (mode 0700) if it is not there: `repo init` alone does. */
  readonly create?: boolean
  /** For a call that moves no bytes; objects add time by their size. */
  readonly deadlineMs?: number
}

const DEADLINE_MS = 60_000
/** Slower than any disk worth having: below it, a call counts as hanging. */
const SLOWEST_BYTES_PER_SECOND = 1 * MiB
const NO_HARD_LINKS = new Set(['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK'])

export class FileObjectStore implements ObjectStore {
  readonly url: string
  readonly #root: string
  readonly #clock: Clock
  readonly #deadlineMs: number
  readonly #folders: DurableFolders
  readonly #temp: TempFiles
  #direct = true

  private constructor(root: string, options: FileObjectStoreOptions) {
    this.url = pathToFileURL(root).href
    this.#root = root
    this.#clock = options.clock ?? systemClock
    this.#deadlineMs = options.deadlineMs ?? DEADLINE_MS
    this.#folders = new DurableFolders(root)
    this.#temp = new TempFiles(root)
  }

  /** @throws {StoreMissingError} the folder is not there, and `create` was not asked for. */
  static async open(path: string, options: FileObjectStoreOptions = {}): Promise<FileObjectStore> {
    const url = pathToFileURL(path).href
    const clock = options.clock ?? systemClock
    const never = new AbortController().signal
    const deadline = { clock, ms: options.deadlineMs ?? DEADLINE_MS, signal: never, what: `opening ${url}`, url }
    try {
      return await withDeadline(deadline, () => FileObjectStore.#open(path, url, options))
    } catch (error) {
      if (error instanceof OperationalError) throw error
      throw translateFileError(error, { what: `opening ${url}`, url })
    }
  }

  static async #open(path: string, url: string, options: FileObjectStoreOptions): Promise<FileObjectStore> {
    if (options.create === true) await makeRoot(path)
    const root = await realpath(path)
    const store = new FileObjectStore(root, options)
    await store.#temp.open().catch((error: unknown) => {
      // A repository on a read-only mount can still be restored from; a put will say what is wrong.
      if (errnoOf(error) !== 'EROFS' && errnoOf(error) !== 'EACCES') throw error
      options.logger?.info({ url, errno: errnoOf(error) }, 'the store is open for reading only')
    })
    return store
  }

  async put(name: ObjectName, bytes: Uint8Array, options: PutOptions): Promise<void> {
    await this.#write(name, bytes, options, async (temp, path) => {
      await rename(temp, path)
      return true
    })
  }

  async putIfAbsent(name: ObjectName, bytes: Uint8Array, options: PutOptions): Promise<'stored' | 'exists'> {
    const stored = await this.#write(name, bytes, options, linkOrLook)
    return stored ? 'stored' : 'exists'
  }

  async get(name: ObjectName, options: GetOptions): Promise<Buffer> {
    checkObjectName(name)
    const bytes = options.range?.length ?? 1024 * MiB
    return this.#call(`reading ${name}`, name, bytes, options.signal, async (signal) => {
      const { into, range, uncached } = options
      if (uncached === true && this.#direct && into !== undefined && isPageAligned(into)) {
        try {
          if ((range?.offset ?? 0) % PAGE_BYTES === 0) return await this.#read(name, options, true, signal)
        } catch (error) {
          if (!isNoDirectAccess(error)) throw error
          this.#direct = false
        }
      }
      return await this.#read(name, options, false, signal)
    })
  }

  /** @param direct past the page cache: whole pages are read into `into`, which has room for them. */
  async #read(name: ObjectName, options: GetOptions, direct: boolean, signal: AbortSignal): Promise<Buffer> {
    await using file = await this.#openFile(name, direct ? constants.O_DIRECT : 0)
    const { size } = await file.stat()
    const offset = Math.min(options.range?.offset ?? 0, size)
    const length = Math.min(options.range?.length ?? size, size - offset)
    if (length > getBound(options)) throw new ObjectTooLargeError(name, this.url, length, getBound(options))
    const result = bufferFor(length, options.into)
    const [target, end] = direct
      ? [options.into ?? result, Math.ceil(length / PAGE_BYTES) * PAGE_BYTES]
      : [result, length]
    for (let filled = 0; filled < length;) {
      throwIfAborted(signal, `reading ${name}`)
      const step = Math.min(4 * MiB, end - filled)
      const { bytesRead } = await file.read(target, filled, step, offset + filled)
      if (bytesRead === 0) throw Object.assign(new Error(`${name} shrank while it was read`), { code: 'EIO' })
      filled += bytesRead
    }
    return result
  }

  async stat(name: ObjectName, signal: AbortSignal): Promise<ObjectEntry | undefined> {
    checkObjectName(name)
    return this.#call(`looking for ${name}`, name, 0, signal, async () => {
      try {
        await this.#refuseLinks(dirname(join(this.#root, name)))
        const found = await lstat(join(this.#root, name))
        if (found.isSymbolicLink()) throw symbolicLink(name, this.url)
        return found.isFile() ? { name, size: found.size, modifiedAt: found.mtime } : undefined
      } catch (error) {
        if (await this.#isAbsent(error)) return undefined
        throw error
      }
    })
  }

  list(prefix: string, options: ListOptions): AsyncIterable<ObjectEntry> {
    checkPrefix(prefix)
    const what = `listing ${prefix}`
    const check = (): void => throwIfAborted(options.signal, what)
    const startAfter = options.startAfter ?? ''
    return this.#pages(what, options.signal, () => walk({ root: this.#root, url: this.url, prefix, startAfter, check }))
  }

  listFolders(prefix: string, signal: AbortSignal): AsyncIterable<string> {
    checkFolder(prefix)
    const what = `listing ${prefix}`
    const check = (): void => throwIfAborted(signal, what)
    return this.#pages(what, signal, () => walkFolders({ root: this.#root, url: this.url, prefix, check }))
  }

  async delete(names: readonly ObjectName[], signal: AbortSignal): Promise<void> {
    for (const name of names) checkObjectName(name)
    const folders = new Set<string>()
    for (const name of names) {
      const path = join(this.#root, name)
      await this.#call(`deleting ${name}`, name, 0, signal, async () => {
        try {
          await this.#refuseLinks(dirname(path))
          await unlink(path)
          folders.add(dirname(path))
        } catch (error) {
          if (!(await this.#isAbsent(error))) throw error
        }
      })
    }
    for (const folder of folders) {
      await this.#call('deleting', undefined, 0, signal, async () => {
        await syncFolder(folder).catch(async (error: unknown) => {
          if (!(await this.#isAbsent(error))) throw error
        })
        await this.#folders.prune(folder)
      })
    }
  }

  /** The modification time of a fresh file: on a network file system it is the server's clock that counts. */
  async storeTime(signal: AbortSignal): Promise<Date> {
    return this.#call('asking for the time', undefined, 0, signal, (cut) => this.#temp.time(cut))
  }

  async probe(signal: AbortSignal): Promise<StoreCapabilities> {
    const name = `scratch/probe-${randomId()}`
    try {
      await this.put(name, Buffer.from('probe'), { signal })
      return await this.#call('probing', name, 0, signal, async () => {
        const path = join(this.#root, name)
        const linked = await link(path, `${path}-2`).then(
          () => true,
          (error: unknown) => {
            if (NO_HARD_LINKS.has(errnoOf(error) ?? '')) return false
            throw error
          },
        )
        // A file system is handed bytes, no checksum: there is nothing that it could compare.
        return { conditionalPut: linked, checksumAtIngest: false }
      })
    } finally {
      await this.delete([name, `${name}-2`], signal).catch(() => {})
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  async #write(
    name: ObjectName,
    bytes: Uint8Array,
    options: PutOptions,
    publish: (temp: string, path: string) => Promise<boolean>,
  ): Promise<boolean> {
    checkObjectName(name)
    const path = join(this.#root, name)
    const folder = dirname(path)
    return this.#call(`writing ${name}`, name, bytes.length, options.signal, async (signal) => {
      const temp = await this.#temp.write(bytes, signal)
      try {
        for (let attempt = 1; ; attempt += 1) {
          try {
            await this.#folders.ensure(folder)
            await this.#refuseLinks(folder)
            throwIfAborted(signal, `writing ${name}`)
            const stored = await publish(temp, path)
            await syncFolder(folder)
            return stored
          } catch (error) {
            // Somebody's delete may have taken the empty folder away in between.
            if (errnoOf(error) !== 'ENOENT' || attempt === 5) throw error
            this.#folders.forget(folder)
          }
        }
      } finally {
        await unlink(temp).catch(() => {})
      }
    })
  }

  async #openFile(name: ObjectName, flags: number): Promise<FileHandle> {
    const path = join(this.#root, name)
    try {
      await this.#refuseLinks(dirname(path))
      const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK | flags)
      if ((await file.stat()).isFile()) return file
      await file.close()
    } catch (error) {
      if (!(await this.#isAbsent(error))) throw error
      throw new ObjectNotFoundError(name, this.url, error)
    }
    throw new ObjectNotFoundError(name, this.url)
  }

  /** Resolved paths are compared, so that no symbolic link below the root leads elsewhere, inside or out. */
  async #refuseLinks(folder: string): Promise<void> {
    if ((await realpath(folder)) !== folder) throw symbolicLink(folder.slice(this.#root.length + 1), this.url)
  }

  /** "No such object" as against "no such store": the root has to be there for an absence to mean something. */
  async #isAbsent(error: unknown): Promise<boolean> {
    const code = errnoOf(error)
    if (code === 'ENOTDIR' || code === 'EISDIR') return true
    if (code !== 'ENOENT') return false
    await lstat(this.#root)
    return true
  }

  async *#pages<T>(what: string, signal: AbortSignal, start: () => AsyncGenerator<T>): AsyncGenerator<T> {
    const source = start()
    for (;;) {
      const next = await this.#call(what, undefined, 0, signal, () => source.next())
      if (next.done === true) return
      yield next.value
    }
  }

  async #call<T>(
    what: string,
    name: ObjectName | undefined,
    bytes: number,
    signal: AbortSignal,
    run: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const ms = this.#deadlineMs + (bytes / SLOWEST_BYTES_PER_SECOND) * 1000
    try {
      return await withDeadline({ clock: this.#clock, ms, signal, what, url: this.url }, run)
    } catch (error) {
      if (error instanceof OperationalError) throw error
      throw translateFileError(error, { what, url: this.url, ...(name !== undefined && { name }) })
    }
  }
}

/** Gives `temp` the name `path`, unless that is taken. link(2) decides; without hard links, a look does. */
async function linkOrLook(temp: string, path: string): Promise<boolean> {
  try {
    await link(temp, path)
    return true
  } catch (error) {
    const code = errnoOf(error) ?? ''
    // NFS repeats a request whose answer was lost and then finds its own link (open(2), O_EXCL).
    if (code === 'EEXIST') {
      if (!(await lstat(path)).isFile()) throw Object.assign(new Error(`${path} is no file`), { code: 'EISDIR' })
      return (await lstat(temp)).nlink === 2
    }
    if (!NO_HARD_LINKS.has(code)) throw error
    const taken = await lstat(path).then(
      () => true,
      () => false,
    )
    if (!taken) await rename(temp, path)
    return !taken
  }
}

async function makeRoot(path: string): Promise<void> {
  const first = await mkdir(path, { recursive: true, mode: 0o700 })
  if (first === undefined) return
  for (let made = path; made.length >= first.length; made = dirname(made)) await syncFolder(dirname(made))
}
