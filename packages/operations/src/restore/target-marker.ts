/**
 * The fence file of a restore: what the directory is, or is to become.
 *
 * 'incomplete' keeps every restore but one that takes it up again out; 'complete' allows a delta restore. Whatever is not one of ours,
 * or was written by a release that said less, is no marker. The owner of a directory can write what he likes into it: root believes what it
 * says of owners and tablespaces only as far as that owner could do the same himself.
 */
import { readFile } from 'node:fs/promises'
import { type TargetMarker, targetMarkerSchema } from '@tidemark/contracts'

export type { TargetMarker } from '@tidemark/contracts'

export const FENCE = 'tidemark_restore.json'

/** Undefined where there is none, or none that says enough. */
export async function readMarker(directory: string): Promise<TargetMarker | undefined> {
  try {
    const parsed = targetMarkerSchema.safeParse(JSON.parse(await readFile(`${directory}/${FENCE}`, 'utf8')))
    return parsed.success ? parsed.data : undefined
  } catch {
    return undefined
  }
}
