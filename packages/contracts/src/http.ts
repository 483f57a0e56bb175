/** Bodies and parameters of the HTTP API. Names that stand in the path are not repeated in the body. */
import { z } from 'zod'
import { backupOptionsSchema, maintenanceRequestSchema, restoreRequestSchema, verifyRequestSchema } from './jobs.ts'
import { operationIdSchema } from './queues.ts'

/** POST /v1/clusters/{name}/backups */
export const startBackupBodySchema = backupOptionsSchema
/** POST /v1/clusters/{name}/backups/{backupId}/verifications */
export const startVerificationBodySchema = verifyRequestSchema.pick({ level: true, repository: true })
/** POST /v1/restores */
export const startRestoreBodySchema = restoreRequestSchema

/** POST /v1/maintenance */
export const startMaintenanceBodySchema = maintenanceRequestSchema

/** The body of every 202. */
export const acceptedSchema = z.strictObject({
  operationId: operationIdSchema,
  /** False when the request led to an operation that already existed. */
  created: z.boolean(),
  /** Where to follow it; also in the Location header. */
  location: z.string(),
})
export type Accepted = z.infer<typeof acceptedSchema>

/** 1 to 255 visible ASCII characters. */
export const idempotencyKeySchema = z
  .string()
  .regex(/^[\x21-\x7e]{1,255}$/, { error: 'an Idempotency-Key: 1 to 255 visible ASCII characters' })
