/** What is known of a target before anything is written to it. Looks, changes nothing. */
import type { BigIntStats } from 'node:fs'
import { lstat, readdir, stat, statfs } from 'node:fs/promises'
import { dirname } from 'node:path'
import { OperationalError } from '@tidemark/kernel'
import { TargetNotEmptyError, TargetNotResumableError, TargetUnusableError } from '../errors.ts'
import { type Place, resolvedPath } from './directory-identity.ts'
import { refuseMountsBelow, serversAbove } from './target-ground.ts'
import { refuseIfHeld } from './target-lock.ts'
import { FENCE, type TargetMarker, readMarker, unfinished } from './target-marker.ts'

export interface Owner {
  readonly uid: number
  readonly gid: number
}

/** 'new' wants an empty directory; 'resume' one whose restore did not finish; 'delta' one that a restore made. */
export type TargetMode = 'new' | 'resume' | 'delta'

export interface TargetFacts extends Place {
  readonly freeBytes: number
  /** Whom the files must belong to; undefined where this process makes them its own. */
  readonly owner: Owner | undefined
  /** Of the restore whose work is taken up; undefined for 'new'. */
  readonly marker: TargetMarker | undefined
}

const CHECK_PATH = 'check the path and the rights of the folders above it'

/**
 * @param owner asked for by name; else, as root, the owner of the directory (or of its parent where it is to be made).
 * @throws {TargetNotEmptyError} @throws {TargetUnusableError} @throws {TargetNotResumableError} @throws {TargetInUseError}
 */
export async function inspectTarget(
  directory: string,
  owner: Owner | undefined,
  mode: TargetMode = 'new',
): Promise<TargetFacts> {
  const target = await lstat(directory, { bigint: true }).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw new TargetUnusableError(directory, String(error.code), CHECK_PATH, error)
  })
  await refuseServersGround(directory)
  if (mode !== 'new') return await inspectMarked(directory, target, owner, mode)
  if (target === undefined) {
    const parent = dirname(directory)
    const above = await stat(parent, { bigint: true }).catch((error: unknown) => {
      throw new TargetUnusableError(directory, `${parent} does not exist`, 'make the folder above it first', error)
    })
    if (!above.isDirectory()) throw new TargetUnusableError(directory, `${parent} is no directory`, 'name another path')
    const freeBytes = await freeBytesOf(parent)
    return { seen: undefined, above, freeBytes, owner: ownerFor(directory, above, owner), marker: undefined }
  }
  if (!target.isDirectory()) throw new TargetNotEmptyError(directory, 'a file or link of that name')
  const found = await namesIn(directory)
  // One that was killed before it had a fence has changed nothing.
  const first = found.find((name) => name !== unfinished(FENCE))
  if (first !== undefined) {
    const marker = await readMarker(directory)
    if (marker?.state === 'incomplete') throw TargetNotEmptyError.ofRestore(directory, marker.backupId)
    throw new TargetNotEmptyError(directory, first)
  }
  const freeBytes = await freeBytesOf(directory)
  return { seen: target, above: undefined, freeBytes, owner: ownerFor(directory, target, owner), marker: undefined }
}

async function inspectMarked(
  directory: string,
  target: BigIntStats | undefined,
  owner: Owner | undefined,
  mode: 'resume' | 'delta',
): Promise<TargetFacts> {
  if (target?.isDirectory() !== true) throw new TargetNotResumableError(directory, mode, 'it is no directory')
  await refuseMountsBelow(await resolvedPath(directory), directory)
  await refuseIfHeld(directory, directory, 'unlocked').catch((error: unknown) => {
    throw error instanceof OperationalError ? error : unreadable(directory, error)
  })
  const found = await readMarker(directory)
  const marker = mode === 'resume' && isRootsAlone(target) ? notGivenBack(found) : found
  if (marker === undefined) throw new TargetNotResumableError(directory, mode, 'no restore has left its marker in it')
  const wanted = mode === 'resume' ? 'incomplete' : 'complete'
  if (marker.state !== wanted)
    throw new TargetNotResumableError(
      directory,
      mode,
      `the restore of backup ${marker.backupId} in it is ${marker.state}`,
    )
  if (marker.directory.path !== directory || marker.directory.inode !== Number(target.ino))
    throw new TargetNotResumableError(
      directory,
      mode,
      `its marker was written for ${marker.directory.path}: this is a copy of that, or was moved`,
    )
  const freeBytes = await freeBytesOf(directory)
  // Root's own while a restore is in it: whoever was killed could not give it back, and nobody else has written the marker.
  const asked = owner ?? (isRootsAlone(target) ? marker.owner : undefined)
  return { seen: target, above: undefined, freeBytes, owner: ownerFor(directory, target, asked), marker }
}

/** Killed after its last word, and before it gave the directories to their owner: that alone is left to do. */
function notGivenBack(marker: TargetMarker | undefined): TargetMarker | undefined {
  if (marker?.state !== 'complete') return marker
  const { finishedAt: _, ...rest } = marker
  return { ...rest, state: 'incomplete', ready: true }
}

/** Left by a restore of root's that was killed. */
export function isRootsAlone({ uid, mode }: { readonly uid: bigint; readonly mode: bigint }): boolean {
  return uid === 0n && (mode & 0o777n) === 0o700n
}

async function refuseServersGround(directory: string): Promise<void> {
  const above = await serversAbove(directory).catch((error: NodeJS.ErrnoException) => {
    throw new TargetUnusableError(directory, String(error.code), CHECK_PATH, error)
  })
  if (above !== undefined)
    throw new TargetUnusableError(
      directory,
      `it lies in ${above}, which is a data directory, a tablespace or the target of a restore`,
      'name a directory outside of all of them',
    )
}

async function namesIn(directory: string): Promise<string[]> {
  return await readdir(directory).catch((error: unknown) => {
    throw unreadable(directory, error)
  })
}

/** A directory that root restored into, or was killed in, is closed to others. */
function unreadable(directory: string, cause: unknown): TargetUnusableError {
  const { code } = cause as NodeJS.ErrnoException
  return new TargetUnusableError(
    directory,
    `it cannot be read: ${String(code)}`,
    'run the restore as the user who owns it, or as root',
    cause,
  )
}

export async function freeBytesOf(directory: string): Promise<number> {
  const { bavail, bsize } = await statfs(directory)
  return bavail * bsize
}

function ownerFor(directory: string, found: BigIntStats, asked: Owner | undefined): Owner | undefined {
  if (process.getuid?.() !== 0) return undefined
  const owner = asked ?? { uid: Number(found.uid), gid: Number(found.gid) }
  if (owner.uid === 0) {
    throw new TargetUnusableError(
      directory,
      'it would belong to root, and PostgreSQL does not run as root',
      "make the directory and give it to the server's user first (install -d -o postgres -g postgres -m 700 …), or pass --owner",
    )
  }
  return owner
}
