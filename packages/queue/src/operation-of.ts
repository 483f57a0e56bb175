/** A BullMQ job as the Operation that callers see. */
import type { Job, JobState } from 'bullmq'
import { operationSchema, progressSchema, resultSchemas, storedJobSchemas } from '@tidemark/contracts'
import type { Operation, OperationKind, OperationState } from '@tidemark/contracts'
import { problemFromFailedReason } from './failure.ts'

/** Undefined when the job's data is not ours to read: another release's, or tampered with. */
export function operationOf(kind: OperationKind, job: Job, jobState: JobState): Operation | undefined {
  const stored = storedJobSchemas[kind].safeParse(job.data)
  if (!stored.success) return undefined
  const problem = job.failedReason ? problemFromFailedReason(job.failedReason) : undefined
  const state = stateOf(jobState, job, problem?.code)
  const progress = progressSchema.safeParse(job.progress)
  const result = state === 'succeeded' ? resultSchemas[kind].safeParse(job.returnvalue) : undefined
  const shown = problem !== undefined && (state === 'failed' || state === 'cancelled' || state === 'retrying')
  return operationSchema.parse({
    id: job.id,
    kind,
    ...(stored.data.job.cluster === undefined ? {} : { cluster: stored.data.job.cluster }),
    state,
    createdAt: stored.data.job.requestedAt,
    ...(job.processedOn === undefined ? {} : { startedAt: new Date(job.processedOn).toISOString() }),
    ...(job.finishedOn === undefined ? {} : { finishedAt: new Date(job.finishedOn).toISOString() }),
    attempts: job.attemptsStarted,
    ...(progress.success ? { progress: progress.data } : {}),
    ...(result?.success ? { result: result.data } : {}),
    ...(shown ? { error: problem } : {}),
  })
}

function stateOf(state: JobState, job: Job, problemCode: string | undefined): OperationState {
  switch (state) {
    case 'completed':
      return 'succeeded'
    case 'failed':
      return problemCode === 'CANCELLED' ? 'cancelled' : 'failed'
    case 'active':
      return 'running'
    case 'waiting':
    case 'delayed':
    case 'prioritized':
    case 'waiting-children':
      return job.attemptsStarted > 0 ? 'retrying' : 'queued'
    default:
      return state satisfies never
  }
}
