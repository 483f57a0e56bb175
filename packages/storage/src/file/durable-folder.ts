import { mkdir, open, rmdir } from 'node:fs/promises'
import { dirname } from 'node:path'
import { errnoOf } from './translate-file-error.ts'

const REMEMBERED = 10_000

/**
 * Folders below a root that survive a power cut.
 *
 * A new folder is durable only once its parent is synced, and that holds for each level. A folder that
 * somebody else made a moment ago may not be synced yet, so each is synced once by every process.
 */
export class DurableFolders {
  readonly #root: string
  readonly #durable = new Set<string>()

  constructor(root: string) {
    this.#root = root
  }

  /** Makes `folder` and what is missing above it, up to the root, which has to exist. Mode 0700. */
  async ensure(folder: string): Promise<void> {
    if (folder === this.#root || this.#durable.has(folder)) return
    const parent = dirname(folder)
    await this.ensure(parent)
    try {
      await mkdir(folder, { mode: 0o700 })
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw error
    }
    await syncFolder(parent)
    if (this.#durable.size >= REMEMBERED) this.#durable.clear()
    this.#durable.add(folder)
  }

  /** It may be gone: the next `ensure` looks again. */
  forget(folder: string): void {
    for (let path = folder; path.length > this.#root.length; path = dirname(path)) this.#durable.delete(path)
  }

  /** Removes `folder` and then its parents, as long as they are empty. */
  async prune(folder: string): Promise<void> {
    for (let path = folder; path.length > this.#root.length; path = dirname(path)) {
      try {
        await rmdir(path)
      } catch (error) {
        const code = errnoOf(error)
        if (code === 'ENOENT') continue
        if (code === 'ENOTEMPTY' || code === 'EEXIST') return
        throw error
      }
      this.#durable.delete(path)
    }
  }
}

/** Makes the entries of a folder durable: names that were linked, renamed or removed in it. */
export async function syncFolder(path: string): Promise<void> {
  await using folder = await open(path, 'r')
  await folder.sync()
}
