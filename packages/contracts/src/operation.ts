/** What GET /v1/operations/{id} and its event stream answer. */
import { z } from 'zod'
import { clusterNameSchema, countSchema, timestampSchema } from './identifiers.ts'
import { problemSchema } from './problem.ts'
import { operationIdSchema } from './queues.ts'
import { backupResultSchema, maintenanceResultSchema, restoreResultSchema, verifyResultSchema } from './results.ts'

/**
 * queued    → running: a worker took it
 * running   → succeeded | failed | cancelled, or retrying: it failed in a way that passes, its
 *             worker died, or its worker shut down and handed it back
 * retrying  → running
 */
export const operationStateSchema = z.enum(['queued', 'running', 'retrying', 'succeeded', 'failed', 'cancelled'])
export type OperationState = z.infer<typeof operationStateSchema>

/** The kernel's Progress plus what the worker computed from two of them. */
export const progressSchema = z.strictObject({
  phase: z.string().min(1),
  bytesDone: countSchema,
  bytesTotal: countSchema.exactOptional(),
  bytesStored: countSchema.exactOptional(),
  files: countSchema.exactOptional(),
  /** Smoothed over the last seconds of this phase. */
  bytesPerSecond: z.number().nonnegative().exactOptional(),
  /** Of this phase; absent while bytesTotal or the rate is unknown. */
  etaSeconds: countSchema.exactOptional(),
  at: timestampSchema,
})
export type OperationProgress = z.infer<typeof progressSchema>

const common = {
  id: operationIdSchema,
  cluster: clusterNameSchema,
  state: operationStateSchema,
  createdAt: timestampSchema,
  /** Of the latest attempt. */
  startedAt: timestampSchema.exactOptional(),
  finishedAt: timestampSchema.exactOptional(),
  /** How often a worker started on it. */
  attempts: countSchema,
  progress: progressSchema.exactOptional(),
  /** Of the latest attempt; stays visible while retrying. */
  error: problemSchema.exactOptional(),
}

export const operationSchema = z.discriminatedUnion('kind', [
  z.strictObject({ ...common, kind: z.literal('backup'), result: backupResultSchema.exactOptional() }),
  z.strictObject({ ...common, kind: z.literal('verify'), result: verifyResultSchema.exactOptional() }),
  z.strictObject({ ...common, kind: z.literal('restore'), result: restoreResultSchema.exactOptional() }),
  z.strictObject({
    ...common,
    /** Absent: work on whole repositories. */
    cluster: clusterNameSchema.exactOptional(),
    kind: z.literal('maintenance'),
    result: maintenanceResultSchema.exactOptional(),
  }),
])
export type Operation = z.infer<typeof operationSchema>

export function isTerminal(state: OperationState): boolean {
  return state === 'succeeded' || state === 'failed' || state === 'cancelled'
}
