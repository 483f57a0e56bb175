/**
 * A folder for temporary files that a killed process does not leave for good: the next one of its kind takes it away.
 *
 * Each holds a lock of the kernel's on its folder, so what is locked is in use and what is not is debris, whatever its age.
 */
import { constants } from 'node:fs'
import { type FileHandle, lstat, mkdtemp, open, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { lockDescriptor } from '../locks/lock-descriptor.ts'

const DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW
/** One that swept may have taken ours for debris, before it was locked. */
const ATTEMPTS = 5

export class ScratchFolder implements AsyncDisposable {
  readonly path: string
  readonly #handle: FileHandle
  private constructor(path: string, handle: FileHandle) {
    this.path = path
    this.#handle = handle
  }

  /** @param kind [a-z]+; folders of this kind that nobody holds are removed. */
  static async create(kind: string, parent = tmpdir()): Promise<ScratchFolder> {
    await sweep(parent, `tidemark-${kind}-`)
    for (let attempt = 1; ; attempt += 1) {
      const path = await mkdtemp(join(parent, `tidemark-${kind}-`))
      const handle = await open(path, DIRECTORY).catch(() => undefined)
      if (handle !== undefined) {
        if ((await tryLock(handle, path)) !== false && (await isThere(path, handle)))
          return new ScratchFolder(path, handle)
        await handle.close()
      }
      if (attempt === ATTEMPTS) throw new Error(`${path} was taken away ${ATTEMPTS} times by somebody`)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.path, { recursive: true, force: true })
    await this.#handle.close()
  }
}

/** Only what is this user's: in a shared folder anybody can make one of that name. */
async function sweep(parent: string, prefix: string): Promise<void> {
  for (const name of await readdir(parent)) {
    if (!name.startsWith(prefix)) continue
    const path = join(parent, name)
    const handle = await open(path, DIRECTORY).catch(() => undefined)
    if (handle === undefined) continue
    try {
      const { uid } = await handle.stat()
      if (uid === process.geteuid?.() && (await tryLock(handle, path)) === true && (await isThere(path, handle)))
        await rm(path, { recursive: true, force: true })
    } finally {
      await handle.close()
    }
  }
}

/** Undefined where nothing can be locked: then nothing is swept either. */
async function tryLock(handle: FileHandle, path: string): Promise<boolean | undefined> {
  return await lockDescriptor(handle.fd, path).catch(() => undefined)
}

async function isThere(path: string, handle: FileHandle): Promise<boolean> {
  const [named, held] = [await lstat(path).catch(() => undefined), await handle.stat()]
  return named !== undefined && named.dev === held.dev && named.ino === held.ino
}
