import type { Metrics } from './metrics.ts'

/** How one start of a job ended. Only 'succeeded' and 'failed' are final. */
export const JOB_OUTCOMES = ['succeeded', 'failed', 'retried', 'handed_back'] as const
export type JobOutcome = (typeof JOB_OUTCOMES)[number]

export interface JobMetrics {
  finished(queue: string, outcome: JobOutcome, seconds: number): void
}

/** From half a second to half a day. */
const BUCKETS = [0.5, 1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14_400, 43_200]

/** `tidemark_jobs_finished_total` and `tidemark_job_duration_seconds` for the given queues. */
export function createJobMetrics(metrics: Metrics, queues: readonly string[]): JobMetrics {
  const labels = { queue: queues, outcome: JOB_OUTCOMES }
  const total = metrics.counter('jobs_finished_total', 'Starts of jobs that ended, by outcome', labels)
  const duration = metrics.histogram('job_duration_seconds', 'Duration of one start of a job', labels, BUCKETS)
  return {
    finished(queue, outcome, seconds) {
      total.add({ queue, outcome })
      duration.observe({ queue, outcome }, seconds)
    },
  }
}
