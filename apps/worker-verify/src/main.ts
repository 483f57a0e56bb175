/** Verifies backups where they lie. A damaged one fails the operation: that is what alerts look at. */
import { systemClock } from '@tidemark/kernel'
import { VerifyFailedError, verifyConfigured } from '@tidemark/operations'
import { runWorkerApp } from '@tidemark/queue'

await runWorkerApp({
  name: 'worker-verify',
  kind: 'verify',
  // Packs are verified without a key; only `contents` needs one, and says so.
  check: () => {},
  process: async ({ cluster, backupId, repository, level }, { config, host, logger, signal, progress }) => {
    const result = await verifyConfigured(
      { backup: backupId, cluster, repository, level },
      { config, host, clock: systemClock, logger, signal, progress },
    )
    if (result.repositories.some(({ ok }) => !ok)) throw new VerifyFailedError(result.backupId, result.repositories)
    return result
  },
})
