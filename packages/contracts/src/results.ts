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
  /** One for each repository that was dropped. */
  copyOperationIds: z.array(operationIdSchema).exactOptional(),
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
      /** Objects that came damaged at first and were read again. */
      rereads: countSchema.exactOptional(),
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
  /** Of `bytes`: those that an earlier restore had brought already. */
  sameBytes: countSchema.exactOptional(),
  /** Read from repositories, WAL not counted. */
  fetchedBytes: countSchema.exactOptional(),
  /** Objects that came damaged at first and were read again. */
  rereads: countSchema.exactOptional(),
  durationMs: countSchema,
  /** The shell command that starts the restored server. */
  startCommand: z.string(),
})

const copyResultSchema = z.strictObject({
  verb: z.literal('copy'),
  to: repositoryNameSchema,
  backups: z.array(
    z.strictObject({
      backupId: backupIdSchema,
      cluster: clusterNameSchema,
      /** 'present': it was there already. */
      outcome: z.enum(['copied', 'present']),
      objects: countSchema,
      bytes: countSchema,
    }),
  ),
  /** Could have been copied from, and did not answer: what only they hold was not copied. */
  unavailable: z.array(repositoryNameSchema),
  /** One verification in the target for each backup that was copied. */
  verifyOperationIds: z.array(operationIdSchema).exactOptional(),
})

const sweepResultSchema = z.strictObject({
  verb: z.literal('sweep'),
  dryRun: z.boolean(),
  repositories: z.array(
    z.strictObject({
      name: repositoryNameSchema,
      /** Of dead attempts; at most 1,000 are named. */
      folders: z.array(
        z.strictObject({
          cluster: z.string(),
          systemId: z.string(),
          backupId: backupIdSchema,
          objects: countSchema,
          bytes: countSchema,
        }),
      ),
      objects: countSchema,
      bytes: countSchema,
      begins: countSchema,
      kept: z.array(z.strictObject({ backupId: backupIdSchema, why: z.enum(['young', 'parent', 'undecided']) })),
    }),
  ),
  /** Configured and not required, and did not answer. */
  unavailable: z.array(repositoryNameSchema),
})

export const maintenanceResultSchema = z.discriminatedUnion('verb', [copyResultSchema, sweepResultSchema])

export const resultSchemas = {
  backup: backupResultSchema,
  verify: verifyResultSchema,
  restore: restoreResultSchema,
  maintenance: maintenanceResultSchema,
} as const

export type BackupVerdict = z.infer<typeof verdictSchema>
export type BackupResult = z.infer<typeof backupResultSchema>
export type VerifyResult = z.infer<typeof verifyResultSchema>
export type RestoreResult = z.infer<typeof restoreResultSchema>
export type CopyResult = z.infer<typeof copyResultSchema>
export type SweepResult = z.infer<typeof sweepResultSchema>
export type MaintenanceResult = z.infer<typeof maintenanceResultSchema>

export interface ResultOf {
  backup: BackupResult
  verify: VerifyResult
  restore: RestoreResult
  maintenance: MaintenanceResult
}
