/** How packages/queue wraps a job in Redis. */
import { z } from 'zod'
import { backupJobSchema, maintenanceJobSchema, restoreJobSchema, verifyJobSchema } from './jobs.ts'

const wrapping = {
  /** SHA-256 of the request in canonical form: tells the same request from another one. */
  requestDigest: z.string().regex(/^[0-9a-f]{64}$/),
  /** Random per call: tells the call that created the job from one that found it. */
  callId: z.string().min(1).max(64),
}

export const storedJobSchemas = {
  backup: z.strictObject({ job: backupJobSchema, ...wrapping }),
  verify: z.strictObject({ job: verifyJobSchema, ...wrapping }),
  restore: z.strictObject({ job: restoreJobSchema, ...wrapping }),
  maintenance: z.strictObject({ job: maintenanceJobSchema, ...wrapping }),
} as const
