import type { Dirent } from 'node:fs'
import { lstat, readdir, realpath } from 'node:fs/promises'
import { join } from 'node:path'
import { StoreAccessDeniedError } from '../errors.ts'
import { SCRATCH_PART, isObjectName } from '../object-name.ts'
import type { ObjectEntry } from '../object-store.ts'
import { errnoOf } from './translate-file-error.ts'

export interface WalkOptions {
  readonly root: string
  readonly url: string
  readonly prefix: string
  readonly startAfter: string
  readonly check: () => void
}

/**
 * The objects below a folder in byte order of their full names, as S3 lists them.
 *
 * That is not the order of a directory tree: '/' sorts after '-' and '.', so `a-b/x` and `a.json` come
 * before `a/x`. Sorting each folder's entries with '/' appended to sub-folders gives it. One folder's
 * entries are in memory at a time per level; a sub-folder is opened only when the walk reaches it, and
 * not at all when it lies outside prefix and startAfter.
 */
export async function* walk(options: WalkOptions): AsyncGenerator<ObjectEntry> {
  const { root, prefix, startAfter, check } = options
  const pending = [prefix.slice(0, prefix.lastIndexOf('/') + 1)]
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    check()
    if (next === '' || next.endsWith('/')) {
      const entries = await sortedEntries(options, next)
      const wanted = entries.filter((name) => name.startsWith(prefix) && !isBehind(name, startAfter))
      pending.push(...wanted.toReversed())
      continue
    }
    const found = await lstat(join(root, next)).catch(unlessGone)
    if (found !== undefined) yield { name: next, size: found.size, modifiedAt: found.mtime }
  }
}

/** The sub-folders of `prefix` ('' or ending in '/') that hold an object, however deep. */
export async function* walkFolders(options: Omit<WalkOptions, 'startAfter'>): AsyncGenerator<string> {
  const entries = await sortedEntries(options, options.prefix)
  for (const folder of entries.filter((name) => name.endsWith('/'))) {
    options.check()
    if (await holdsObject(options, folder)) yield folder
  }
}

function isBehind(name: string, startAfter: string): boolean {
  return name <= startAfter && !(name.endsWith('/') && startAfter.startsWith(name))
}

async function holdsObject(options: Omit<WalkOptions, 'startAfter'>, folder: string): Promise<boolean> {
  for await (const _first of walk({ ...options, prefix: folder, startAfter: '' })) return true
  return false
}

/** Full names of what lies in `folder`, sub-folders with '/' at the end; a folder that is gone has none. */
async function sortedEntries(options: Pick<WalkOptions, 'root' | 'url'>, folder: string): Promise<string[]> {
  const { root, url } = options
  let entries: Dirent[]
  try {
    if ((await realpath(join(root, folder))) !== join(root, folder).replace(/\/$/, '')) throw symbolicLink(folder, url)
    entries = await readdir(join(root, folder), { withFileTypes: true })
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT' && errnoOf(error) !== 'ENOTDIR') throw error
    await lstat(root) // an absent store must not look like an empty one
    entries = []
  }
  const names: string[] = []
  for (const entry of entries) {
    const name = folder + entry.name
    if (name === SCRATCH_PART || !isObjectName(name)) continue
    if (entry.isSymbolicLink()) throw symbolicLink(name, url)
    if (entry.isDirectory()) names.push(`${name}/`)
    else if (entry.isFile()) names.push(name)
  }
  // Names are ASCII: the order of UTF-16 code units is the order of bytes.
  return names.sort((a, b) => (a < b ? -1 : 1))
}

export function symbolicLink(name: string, url: string): StoreAccessDeniedError {
  return new StoreAccessDeniedError(`following the symbolic link ${name}`, url, {
    facts: { name },
    hint: 'there is a symbolic link inside the repository; mount or bind-mount the other disk instead',
  })
}

function unlessGone(error: unknown): undefined {
  if (errnoOf(error) === 'ENOENT') return undefined
  throw error
}
