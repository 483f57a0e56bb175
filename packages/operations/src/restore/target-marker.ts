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
import { readPlanted } from './read-planted.ts'

export type { TablespaceMarker, TargetMarker } from '@tidemark/contracts'

export const FENCE = 'tidemark_restore.json'
/** PostgreSQL keeps to a folder of its own in a tablespace, and leaves this alone; base backups do not have it. */
export const TABLESPACE_FENCE = 'tidemark_tablespace.json'

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
