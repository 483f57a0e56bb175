/** Copies backups between repositories and sweeps what dead attempts left: the one worker with the right to delete. It is given no key. */
import { type Config, hostOf } from '@tidemark/config'
import type { CopyResult, MaintenanceJob } from '@tidemark/contracts'
import { systemClock } from '@tidemark/kernel'
import { copyConfigured, sweepConfigured } from '@tidemark/operations'
import { type OperationQueue, runWorkerApp } from '@tidemark/queue'

await runWorkerApp({
  name: 'worker-maintenance',
  kind: 'maintenance',
  check: () => {},
  process: async (job, { config, host, queue, logger, signal, progress }) => {
    const { cluster, task } = job
    const deps = { config, host, clock: systemClock, logger, signal, progress }
    if (task.verb === 'sweep') {
      const { repositories, dryRun } = task
      return await sweepConfigured({ repositories, cluster, dryRun }, deps)
    }
    const { from, to, backupId } = task
    const result = await copyConfigured({ from, to, backup: backupId, cluster }, deps)
    return { ...result, verifyOperationIds: await askForVerification(job, result, config, queue) }
  },
})

/** Whatever was copied is verified where it now lies, on its own. The same keys on every attempt: asked for once. */
async function askForVerification(
  { operationId }: MaintenanceJob,
  { to, backups }: CopyResult,
  config: Config,
  queue: OperationQueue,
): Promise<string[]> {
  const ids: string[] = []
  for (const { backupId, cluster, outcome } of backups) {
    if (outcome !== 'copied') continue
    const host = hostOf(config, cluster, [to])
    const { operationId: id } = await queue.enqueueVerify(
      { cluster, backupId, repository: to },
      { idempotencyKey: `after-${operationId}-${backupId}`, ...(host === undefined ? {} : { host }) },
    )
    ids.push(id)
  }
  return ids
}
