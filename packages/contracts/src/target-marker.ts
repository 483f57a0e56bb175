/** The files a restore keeps in its target (tidemark_restore.json) and in its tablespaces: for whoever looks into a restored directory. */
import { z } from 'zod'
import { backupIdSchema } from './identifiers.ts'
import { restoreProfileSchema } from './jobs.ts'

/** A directory as it was when the marker was written: a copy of it carries the marker along, and is another one. */
const markedDirectorySchema = z.object({ path: z.string(), inode: z.int().nonnegative() })

export const targetMarkerSchema = z.object({
  state: z.enum(['incomplete', 'complete']),
  /** Of an incomplete one: everything is in place and durable, and only pg_control may still have to get its name. */
  ready: z.boolean().exactOptional(),
  backupId: backupIdSchema,
  cluster: z.string(),
  systemId: z.string(),
  profile: restoreProfileSchema,
  /** Whether configuration from outside of the source's data directory was laid beside. */
  configuration: z.enum(['stand-in', 'captured']).exactOptional(),
  /** The directory it was written for, whose tablespaces these are. */
  directory: markedDirectorySchema,
  /** Absolute paths by oid. */
  tablespaces: z.record(z.string().regex(/^\d+$/), z.string()).default({}),
  /** As root: whom the files are given to. */
  owner: z.object({ uid: z.int().nonnegative(), gid: z.int().nonnegative() }).exactOptional(),
  startedAt: z.string(),
  finishedAt: z.string().exactOptional(),
})
export type TargetMarker = z.infer<typeof targetMarkerSchema>

/** tidemark_tablespace.json: whose directory this is. */
export const tablespaceMarkerSchema = z.object({
  oid: z.string().regex(/^\d+$/),
  directory: markedDirectorySchema,
  /** The data directory that it belongs to. */
  of: markedDirectorySchema,
})
export type TablespaceMarker = z.infer<typeof tablespaceMarkerSchema>
