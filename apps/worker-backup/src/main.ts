/** Takes base backups; one that was committed leads to a verify operation, and to a copy for each repository that missed it. */
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
    const owner = hostOf(config, cluster)
    const where = owner === undefined ? {} : { host: owner }
    const { backupId } = result
    // The same keys on every attempt: however often this operation runs, it asks for one verification of a backup, and one copy a repository.
    // Two runs at once may commit two: each is asked for.
    const copyOperationIds: string[] = []
    for (const { name } of result.repositories.filter(({ outcome }) => outcome === 'dropped')) {
      const copy = await queue.enqueueMaintenance(
        { cluster, task: { verb: 'copy', to: name, backupId } },
        { idempotencyKey: `copy-after-${operationId}-${backupId}-${name}`, owed: true, ...where },
      )
      copyOperationIds.push(copy.operationId)
    }
    const owed = copyOperationIds.length === 0 ? {} : { copyOperationIds }
    if (!options.verifyAfter) return { ...result, ...owed }
    const { operationId: verifyOperationId } = await queue.enqueueVerify(
      { cluster, backupId },
      { idempotencyKey: `after-${operationId}-${backupId}`, ...where },
    )
    return { ...result, ...owed, verifyOperationId }
  },
})
