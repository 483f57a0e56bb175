/** What a finished operation leaves behind, per kind. Byte counts are whole numbers, LSNs text. */
import { z } from 'zod'
import {
  absolutePathSchema,
  backupIdSchema,
  clusterNameSchema,
  countSchema,
  lsnSchema,
  repositoryNameSchema,
} from './identifiers.ts'
import { verifyLevelSchema } from './jobs.ts'
import { operationIdSchema } from './queues.ts'

/** The commit record's word. 'damaged': all bytes arrived, but the server reported page-checksum failures; no restorable point. */
const verdictSchema = z.enum(['intact', 'damaged'])

export const backupResultSchema = z.strictObject({
  backupId: backupIdSchema,
  cluster: clusterNameSchema,
  verdict: verdictSchema,
  startLsn: lsnSchema,
  stopLsn: lsnSchema,
  timeline: z.int().positive(),
  /** Plaintext bytes of the cluster's files. */
  bytes: countSchema,
  /** Bytes in each repository, after compression and encryption. */
  storedBytes: countSchema,
  files: countSchema,
  durationMs: countSchema,
  /** 'dropped': not required, lagged or failed, left out of this run; a copy is owed. */
  repositories: z.array(z.strictObject({ name: repositoryNameSchema, outcome: z.enum(['stored', 'dropped']) })),
  verifyOperationId: operationIdSchema.exactOptional(),
})

export const verifyResultSchema = z.strictObject({
  backupId: backupIdSchema,
  level: verifyLevelSchema,
  repositories: z.array(
    z.strictObject({
      name: repositoryNameSchema,
      packs: countSchema,
      bytes: countSchema,
      files: countSchema,
      ok: z.boolean(),
      /** For people; at most as many as are useful to read. */
      problems: z.array(z.string()),
    }),
  ),
})

export const restoreResultSchema = z.strictObject({
  backupId: backupIdSchema,
  targetDirectory: absolutePathSchema,
  bytes: countSchema,
  files: countSchema,
  durationMs: countSchema,
  /** The shell command that starts the restored server. */
  startCommand: z.string(),
})

export const resultSchemas = {
  backup: backupResultSchema,
  verify: verifyResultSchema,
  restore: restoreResultSchema,
} as const

export type BackupVerdict = z.infer<typeof verdictSchema>
export type BackupResult = z.infer<typeof backupResultSchema>
export type VerifyResult = z.infer<typeof verifyResultSchema>
export type RestoreResult = z.infer<typeof restoreResultSchema>

export interface ResultOf {
  backup: BackupResult
  verify: VerifyResult
  restore: RestoreResult
}
