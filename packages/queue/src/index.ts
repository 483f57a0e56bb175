export { connectRedis } from './redis.ts'
export type { RedisConnection, RedisRole, RedisTarget } from './redis.ts'
export { OperationQueue } from './operation-queue.ts'
export type { EnqueueOptions, Enqueued, OperationQueueOptions, QueueJobCount } from './operation-queue.ts'
export { startWorker } from './start-worker.ts'
export type { JobContext, JobMetricsSink, JobOutcome, RunningWorker, StartWorkerOptions } from './start-worker.ts'
export { RETRY_POLICIES } from './retry-policy.ts'
export type { RetryPolicies, RetryPolicy } from './retry-policy.ts'
export {
  IdempotencyKeyReusedError,
  JobMalformedError,
  LockLostError,
  OperationConflictError,
  QueueUnavailableError,
  RedisUnsuitableError,
  WorkerStoppingError,
} from './errors.ts'
export { runWorkerApp } from './run-worker-app.ts'
export type { WorkerApp, WorkerAppContext } from './run-worker-app.ts'
