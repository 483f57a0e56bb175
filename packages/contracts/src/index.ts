export {
  absolutePathSchema,
  backupIdSchema,
  backupReferenceSchema,
  clusterNameSchema,
  hostNameSchema,
  lsnSchema,
  repositoryNameSchema,
  timestampSchema,
} from './identifiers.ts'
export type { BackupReference } from './identifiers.ts'
export {
  OPERATION_KINDS,
  kindOfOperation,
  newOperationId,
  operationIdFromDigest,
  operationIdSchema,
  operationKindSchema,
  parseQueueName,
  queueName,
} from './queues.ts'
export type { OperationKind } from './queues.ts'
export {
  backupJobSchema,
  backupOptionsSchema,
  backupRequestSchema,
  checkpointSchema,
  compressionLevelSchema,
  jobSchemas,
  maintenanceJobSchema,
  maintenanceRequestSchema,
  requestSchemas,
  restoreJobSchema,
  restoreProfileSchema,
  restoreRequestSchema,
  verifyJobSchema,
  verifyLevelSchema,
  verifyRequestSchema,
} from './jobs.ts'
export type {
  BackupJob,
  BackupOptions,
  BackupRequest,
  JobOf,
  MaintenanceJob,
  MaintenanceRequest,
  RequestOf,
  RestoreJob,
  RestoreProfile,
  RestoreRequest,
  VerifyJob,
  VerifyLevel,
  VerifyRequest,
} from './jobs.ts'
export {
  backupResultSchema,
  maintenanceResultSchema,
  restoreResultSchema,
  resultSchemas,
  verifyResultSchema,
} from './results.ts'
export type {
  BackupResult,
  BackupVerdict,
  CopyResult,
  MaintenanceResult,
  RestoreResult,
  ResultOf,
  SweepResult,
  VerifyResult,
} from './results.ts'
export { problemDetailsSchema, problemSchema, problemType, retrySchema } from './problem.ts'
export type { Problem, ProblemDetails } from './problem.ts'
export { isTerminal, operationSchema, operationStateSchema, progressSchema } from './operation.ts'
export type { Operation, OperationProgress, OperationState } from './operation.ts'
export {
  acceptedSchema,
  idempotencyKeySchema,
  startBackupBodySchema,
  startMaintenanceBodySchema,
  startRestoreBodySchema,
  startVerificationBodySchema,
} from './http.ts'
export type { Accepted } from './http.ts'
export { storedJobSchemas } from './stored-job.ts'
export { tablespaceMarkerSchema, targetMarkerSchema } from './target-marker.ts'
export type { TablespaceMarker, TargetMarker } from './target-marker.ts'
