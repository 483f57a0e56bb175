/** Which directory it is, whatever path leads there: links and bind mounts give one directory many names. */
import { realpath, stat } from 'node:fs/promises'
import { basename, dirname, join, sep } from 'node:path'

export interface Identity {
  readonly dev: bigint
  readonly ino: bigint
}

/** A directory that was looked at. */
export interface SeenDirectory extends Identity {
  readonly uid: bigint
  readonly mode: bigint
}

/** Where a directory of a restore is, or is to be made, as the plan found it: the claim wants to find the same. */
export interface Place {
  /** Undefined where there is none. */
  readonly seen: SeenDirectory | undefined
  /** The folder it is to be made in; undefined where it is there. */
  readonly above: Identity | undefined
}

export function isSame(one: Identity, other: Identity): boolean {
  return one.dev === other.dev && one.ino === other.ino
}

/** The path without links; what of it is not there yet stays as it is. @throws system errors other than ENOENT */
export async function resolvedPath(path: string): Promise<string> {
  try {
    return await realpath(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || dirname(path) === path) throw error
    return join(await resolvedPath(dirname(path)), basename(path))
  }
}

/** Whether `path` is `directory` or lies in it. Either need not be there. */
export async function liesIn(path: string, directory: string): Promise<boolean> {
  const [resolved, wanted] = await Promise.all([resolvedPath(path), resolvedPath(directory)])
  if (resolved === wanted || resolved.startsWith(wanted === sep ? sep : wanted + sep)) return true
  const identity = await identityOf(wanted)
  if (identity === undefined) return false
  for (let above = resolved; ; above = dirname(above)) {
    const found = await identityOf(above)
    if (found !== undefined && isSame(found, identity)) return true
    if (above === dirname(above)) return false
  }
}

async function identityOf(path: string): Promise<Identity | undefined> {
  return await stat(path, { bigint: true }).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return undefined
    throw error
  })
}
