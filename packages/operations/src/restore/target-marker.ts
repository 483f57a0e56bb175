/**
 * The files by which a restore marks what it works in: the fence of the data directory, and a marker in each tablespace's.
 *
 * 'incomplete' keeps every restore but one that takes it up again out; 'complete' allows a delta restore. Whatever is not one of ours,
 * or was written by a release that said less, is no marker. The owner of a directory can write what he likes into it: root believes what it
 * says of owners and tablespaces only as far as that owner could do the same himself.
 */
import {
  type TablespaceMarker,
  type TargetMarker,
  tablespaceMarkerSchema,
  targetMarkerSchema,
} from '@tidemark/contracts'
import { constants } from 'node:fs'
import { link, open, rm } from 'node:fs/promises'
import { readPlanted } from './read-planted.ts'

export type { TablespaceMarker, TargetMarker } from '@tidemark/contracts'

export const FENCE = 'tidemark_restore.json'
/** PostgreSQL keeps to a folder of its own in a tablespace, and leaves this alone; base backups do not have it. */
export const TABLESPACE_FENCE = 'tidemark_tablespace.json'

const NEW = constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY | constants.O_NOFOLLOW

/** What a file of that name is called until all of it is written. One that a killed restore has left means nothing. */
export function unfinished(name: string): string {
  return `${name}.tmp`
}

/**
 * Puts a marker where there is none. It has its name only once it is written and durable: nobody finds half of one, also when this process
 * is killed or the disk is full. The caller holds the directory's lock.
 *
 * @param owner as root: whom it is given to. @returns false where something has that name; that is left alone. @throws system errors
 */
export async function placeMarker(
  directory: string,
  name: string,
  marker: TargetMarker | TablespaceMarker,
  owner: { readonly uid: number; readonly gid: number } | undefined,
): Promise<boolean> {
  const written = `${directory}/${unfinished(name)}`
  await rm(written, { force: true })
  try {
    await using file = await open(written, NEW, 0o600)
    await file.writeFile(`${JSON.stringify(marker)}\n`)
    if (owner !== undefined) await file.chown(owner.uid, owner.gid)
    await file.sync()
    await link(written, `${directory}/${name}`)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw error
  } finally {
    await rm(written, { force: true }).catch(() => {})
  }
}

/** Undefined where there is none, or none that says enough. */
export async function readMarker(directory: string): Promise<TargetMarker | undefined> {
  const parsed = targetMarkerSchema.safeParse(await readJson(`${directory}/${FENCE}`))
  return parsed.success ? parsed.data : undefined
}

/** Undefined where there is none, or none that says enough. */
export async function readTablespaceMarker(directory: string): Promise<TablespaceMarker | undefined> {
  const parsed = tablespaceMarkerSchema.safeParse(await readJson(`${directory}/${TABLESPACE_FENCE}`))
  return parsed.success ? parsed.data : undefined
}

async function readJson(path: string): Promise<unknown> {
  try {
    const text = (await readPlanted(path))?.text
    return text === undefined ? undefined : JSON.parse(text)
  } catch {
    return undefined
  }
}
