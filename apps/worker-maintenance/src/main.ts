/** Copies backups between repositories and sweeps what dead attempts left: the one worker with the right to delete. It is given no key. */
import { type Config, hostOf } from '@tidemark/config'
import type { MaintenanceJob } from '@tidemark/contracts'
import { systemClock } from '@tidemark/kernel'
import { copyConfigured, sweepConfigured } from '@tidemark/operations'
import { type OperationQueue, QueueUnavailableError, runWorkerApp } from '@tidemark/queue'

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

interface Copied {
  readonly backupId: string
  readonly cluster: string
}

/** Whatever was copied is verified where it now lies, on its own. The same keys on every attempt: asked for once. */
class Verification {
  readonly operationIds: string[] = []
  readonly #job: MaintenanceJob
  readonly #to: string
  readonly #config: Config
  readonly #queue: OperationQueue
  readonly #unasked: Copied[] = []

  constructor(job: MaintenanceJob, to: string, config: Config, queue: OperationQueue) {
    this.#job = job
    this.#to = to
    this.#config = config
    this.#queue = queue
  }

  /** A queue that does not answer keeps no backup from being copied: asked again in the end. */
  async ask(copy: Copied): Promise<void> {
    try {
      await this.#enqueue(copy)
    } catch (error) {
      if (!(error instanceof QueueUnavailableError)) throw error
      this.#unasked.push(copy)
    }
  }

  /** @throws {QueueUnavailableError} */
  async askAgain(): Promise<void> {
    for (let copy = this.#unasked[0]; copy !== undefined; copy = this.#unasked[0]) {
      await this.#enqueue(copy)
      this.#unasked.shift()
    }
  }

  async #enqueue({ backupId, cluster }: Copied): Promise<void> {
    const host = hostOf(this.#config, cluster, [this.#to])
    const { operationId } = await this.#queue.enqueueVerify(
      { cluster, backupId, repository: this.#to },
      { idempotencyKey: `after-${this.#job.operationId}-${backupId}`, ...(host === undefined ? {} : { host }) },
    )
    this.operationIds.push(operationId)
  }
}
