/** The fence file that a restore keeps in its target (tidemark_restore.json): for whoever looks into a restored directory. */
import { z } from 'zod'
import { backupIdSchema } from './identifiers.ts'
import { restoreProfileSchema } from './jobs.ts'

export const targetMarkerSchema = z.object({
  state: z.enum(['incomplete', 'complete']),
  backupId: backupIdSchema,
  cluster: z.string(),
  systemId: z.string(),
  profile: restoreProfileSchema,
  /** The directory it was written for: a copy of it carries the marker along, and the paths of the original's tablespaces. */
  directory: z.object({ path: z.string(), inode: z.int().nonnegative() }),
  /** Absolute paths by oid. */
  tablespaces: z.record(z.string().regex(/^\d+$/), z.string()).default({}),
  /** As root: whom the files are given to. */
  owner: z.object({ uid: z.int().nonnegative(), gid: z.int().nonnegative() }).exactOptional(),
  startedAt: z.string(),
  finishedAt: z.string().exactOptional(),
})
export type TargetMarker = z.infer<typeof targetMarkerSchema>
