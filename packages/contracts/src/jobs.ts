/**
 * What producers put on the queues. Clear text in Redis: ids and names only, never a secret.
 *
 * Each schema is checked when the job is added and again when it is taken, since a worker may be a
 * release older or newer than the API. Unknown keys are errors at both ends.
 */
import { z } from 'zod'
import {
  absolutePathSchema,
  backupIdSchema,
  backupReferenceSchema,
  clusterNameSchema,
  hostNameSchema,
  repositoryNameSchema,
  timestampSchema,
} from './identifiers.ts'
import { operationIdSchema } from './queues.ts'

export const checkpointSchema = z.enum(['fast', 'spread'])

/** zstd levels that stay usable on a streaming backup. */
export const compressionLevelSchema = z.int().min(1).max(19)

export const backupOptionsSchema = z.strictObject({
  /** 'fast' asks the server for an immediate checkpoint; 'spread' waits for the next gentle one. Default: the worker's configuration. */
  checkpoint: checkpointSchema.exactOptional(),
  compressionLevel: compressionLevelSchema.exactOptional(),
  /** KiB per second that the server may send; 32 is PostgreSQL's own minimum, 1 GiB/s its maximum. */
  maxRateKiB: z.int().min(32).max(1_048_576).exactOptional(),
  /** Printable, for people. */
  label: z
    .string()
    .min(1)
    .max(200)
    .regex(/^\P{Cc}*$/u, { error: 'text without control characters' })
    .exactOptional(),
  /** Enqueue a verification of the new backup when it is committed. */
  verifyAfter: z.boolean().default(true),
  /** A part of the cluster's repositories; default all of them. */
  repositories: z.array(repositoryNameSchema).min(1).max(16).exactOptional(),
})

const envelope = { operationId: operationIdSchema, requestedAt: timestampSchema }

const backupRequest = {
  cluster: clusterNameSchema,
  options: backupOptionsSchema.prefault({}),
}
export const verifyLevelSchema = z.enum(['packs', 'contents'])

const verifyRequest = {
  cluster: clusterNameSchema,
  backupId: backupReferenceSchema,
  /** 'packs' compares stored bytes with the pack table and needs no key; 'contents' opens every frame. */
  level: verifyLevelSchema.default('packs'),
  /** One repository; default every repository of the set that holds the backup. */
  repository: repositoryNameSchema.exactOptional(),
}

export const restoreProfileSchema = z.enum(['clone', 'production'])

/** 'new' wants an empty directory, 'resume' one whose restore was broken off, 'delta' one that an earlier restore finished. */
const restoreModeSchema = z.enum(['new', 'resume', 'delta'])

const restoreRequest = {
  cluster: clusterNameSchema,
  backupId: backupReferenceSchema,
  repository: repositoryNameSchema.exactOptional(),
  targetDirectory: absolutePathSchema,
  /** 'clone' cannot touch its source; 'production' takes its place. */
  profile: restoreProfileSchema.default('clone'),
  /** The host that owns the target directory; default: whichever restore worker is free. */
  host: hostNameSchema.exactOptional(),
  mode: restoreModeSchema.default('new'),
  /** Take away what was written when it fails, instead of keeping it for 'resume'. */
  discardOnFailure: z.boolean().default(false),
  /** Where tablespaces go, by their location on the source. */
  tablespaceMappings: z
    .array(z.strictObject({ from: absolutePathSchema, to: absolutePathSchema }))
    .max(1_000)
    .default([]),
  /** Each that is not mapped goes to a folder of its oid below this one. */
  tablespaceRoot: absolutePathSchema.exactOptional(),
  /** 'captured' lays the source's files from outside of its data directory beside; for production only. */
  configuration: z.enum(['stand-in', 'captured']).default('stand-in'),
}

/** Work on repositories as such: needs no key and no database. */
const copyTask = z.strictObject({
  verb: z.literal('copy'),
  /** Default: any other repository that has the backup. */
  from: repositoryNameSchema.exactOptional(),
  to: repositoryNameSchema,
  /** An id, or 'missing': every backup that `to` lacks. */
  backupId: z.union([backupIdSchema, z.literal('missing')]),
})
const sweepTask = z.strictObject({
  verb: z.literal('sweep'),
  /** Default: all of the configuration. */
  repositories: z.array(repositoryNameSchema).min(1).max(16).exactOptional(),
  /** Say what would go, delete nothing. */
  dryRun: z.boolean().default(false),
})
const maintenanceRequest = {
  /** Only what belongs to this cluster; default everything. */
  cluster: clusterNameSchema.exactOptional(),
  task: z.discriminatedUnion('verb', [copyTask, sweepTask]),
}

/** What a caller asks for; the queue adds operationId and requestedAt. */
export const backupRequestSchema = z.strictObject(backupRequest)
export const verifyRequestSchema = z.strictObject(verifyRequest)
export const restoreRequestSchema = z.strictObject(restoreRequest)
export const maintenanceRequestSchema = z.strictObject(maintenanceRequest)

export const backupJobSchema = z.strictObject({ ...envelope, ...backupRequest })
export const verifyJobSchema = z.strictObject({ ...envelope, ...verifyRequest })
export const restoreJobSchema = z.strictObject({ ...envelope, ...restoreRequest })
export const maintenanceJobSchema = z.strictObject({ ...envelope, ...maintenanceRequest })

export const jobSchemas = {
  backup: backupJobSchema,
  verify: verifyJobSchema,
  restore: restoreJobSchema,
  maintenance: maintenanceJobSchema,
} as const
export const requestSchemas = {
  backup: backupRequestSchema,
  verify: verifyRequestSchema,
  restore: restoreRequestSchema,
  maintenance: maintenanceRequestSchema,
} as const

export type BackupOptions = z.infer<typeof backupOptionsSchema>
export type BackupJob = z.infer<typeof backupJobSchema>
export type VerifyJob = z.infer<typeof verifyJobSchema>
export type RestoreJob = z.infer<typeof restoreJobSchema>
export type MaintenanceJob = z.infer<typeof maintenanceJobSchema>
export type VerifyLevel = z.infer<typeof verifyLevelSchema>
export type RestoreProfile = z.infer<typeof restoreProfileSchema>

/** Requests as callers write them: fields with defaults may be left out. */
export type BackupRequest = z.input<typeof backupRequestSchema>
export type VerifyRequest = z.input<typeof verifyRequestSchema>
export type RestoreRequest = z.input<typeof restoreRequestSchema>
export type MaintenanceRequest = z.input<typeof maintenanceRequestSchema>

export interface JobOf {
  backup: BackupJob
  verify: VerifyJob
  restore: RestoreJob
  maintenance: MaintenanceJob
}
export interface RequestOf {
  backup: BackupRequest
  verify: VerifyRequest
  restore: RestoreRequest
  maintenance: MaintenanceRequest
}
