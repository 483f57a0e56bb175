import { type Config, hostOf } from '@tidemark/config'
import type { MaintenanceJob } from '@tidemark/contracts'
import { type OperationQueue, QueueUnavailableError } from '@tidemark/queue'

export interface Copied {
  readonly backupId: string
  readonly cluster: string
}

/** Whatever was copied is verified where it now lies, on its own. The same keys on every attempt: asked for once. */
export class Verification {
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
