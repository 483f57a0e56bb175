/** Takes base backups; a backup that was committed leads to a verify operation. */
import { KeyMissingError } from '@tidemark/crypto'
import { systemClock } from '@tidemark/kernel'
import { hostOf } from '@tidemark/config'
import { backupCluster } from '@tidemark/operations'
import { runWorkerApp } from '@tidemark/queue'

let countDamaged = (_cluster: string): void => {}

await runWorkerApp({
  name: 'worker-backup',
  kind: 'backup',
  check: ({ encryption }) => {
    if (encryption.key === undefined) throw new KeyMissingError('a backup worker')
  },
  measure: (metrics, { clusters }) => {
    const help = 'Backups that were committed as damaged: the server reported pages with wrong checksums'
    const damaged = metrics.counter('backup_damaged_total', help, { cluster: Object.keys(clusters) })
    countDamaged = (cluster) => damaged.add({ cluster })
  },
  process: async (job, { config, host, queue, logger, signal, progress }) => {
    const { cluster, operationId, options } = job
    const result = await backupCluster(
      { cluster, operationId, requestedAt: new Date(job.requestedAt), options },
      { config, host, clock: systemClock, logger, signal, progress },
    )
    // An operation that is repeated after its commit counts again: an alert too many, never one too few.
    if (result.verdict === 'damaged') countDamaged(cluster)
    if (!options.verifyAfter) return result
    const owner = hostOf(config, cluster)
    // The same key on every attempt: however often this operation runs, it asks for one verification.
    const { operationId: verifyOperationId } = await queue.enqueueVerify(
      { cluster, backupId: result.backupId },
      { idempotencyKey: `after-${operationId}`, ...(owner === undefined ? {} : { host: owner }) },
    )
    return { ...result, verifyOperationId }
  },
})
