/** Copies backups between repositories and sweeps what dead attempts left: the one worker with the right to delete. It is given no key. */
import { systemClock } from '@tidemark/kernel'
import { copyConfigured, sweepConfigured } from '@tidemark/operations'
import { runWorkerApp } from '@tidemark/queue'
import { type Copied, Verification } from './verification.ts'

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
    const verification = new Verification(job, to, config, queue)
    try {
      const onCopied = (copy: Copied): Promise<void> => verification.ask(copy)
      const result = await copyConfigured({ from, to, backup: backupId, cluster }, { ...deps, onCopied })
      await verification.askAgain()
      return { ...result, verifyOperationIds: verification.operationIds }
    } catch (error) {
      // What was copied is verified, whatever became of the others.
      await verification
        .askAgain()
        .catch((unasked: unknown) => logger.warn({ err: unasked }, 'verification not asked for'))
      throw error
    }
  },
})
