/**
 * Says in every repository that an attempt is alive, and knows when it no longer may say so: docs/repository-format.md, sections 8.2 and 11.
 *
 * A sweep goes by the store's clock, so the lease does too: before each renewal, and before the record, the newest begin object has to be
 * there and to be young by that clock. This host's wall clock takes no part.
 */
import { createHash } from 'node:crypto'
import { hostname } from 'node:os'
import { FORMAT_VERSION, type Keyring } from '@tidemark/crypto'
import { type Clock, type Logger, type Lsn, formatLsn } from '@tidemark/kernel'
import { LeaseLostError, RequiredRepositoryError } from './errors.ts'
import { ClusterLayout } from './layout.ts'
import type { Begin } from './records/documents.ts'
import { putProven } from './set/read-back.ts'
import type { Repository } from './set/repository.ts'
import type { SetWriter } from './set/set-writer.ts'

export const RENEW_EVERY_MS = 10 * 60_000
export const LEASE_MS = 60 * 60_000

export interface Attempt {
  readonly backupId: string
  readonly operationId: string
  readonly cluster: string
  readonly systemId: string
  readonly startedAt: Date
}

export class AttemptLease implements AsyncDisposable {
  /** Ids that begin objects name from now on. */
  parents: readonly string[] = []
  startLsn: Lsn | undefined
  readonly #attempt: Attempt
  readonly #writer: SetWriter
  readonly #keyring: Keyring
  readonly #deps: { readonly clock: Clock; readonly logger: Logger; readonly signal: AbortSignal }
  readonly #layout: ClusterLayout
  /** By repository: the newest begin object that is stored there. */
  readonly #last = new Map<string, string>()
  readonly #stop = new AbortController()
  #number = 0
  #renewedMs: number | undefined
  /** Settles with the newest renewal, and so with all of them. */
  #renewing: Promise<unknown> = Promise.resolve()
  #keeping: Promise<void> = Promise.resolve()

  constructor(
    attempt: Attempt,
    writer: SetWriter,
    keyring: Keyring,
    deps: { readonly clock: Clock; readonly logger: Logger; readonly signal: AbortSignal },
  ) {
    this.#attempt = attempt
    this.#writer = writer
    this.#keyring = keyring
    this.#deps = deps
    this.#layout = new ClusterLayout(attempt.cluster, attempt.systemId)
  }

  /**
   * One after the other, however long each takes: a slow one that ended after its successor would pass for the newest.
   *
   * @throws {LeaseLostError} too late: the attempt's objects may be on their way out, and a new begin object would only hide it.
   */
  renew(): Promise<void> {
    const renewed = this.#renewing.then(() => this.#renewOnce())
    this.#renewing = renewed.catch(() => {})
    return renewed
  }

  async #renewOnce(): Promise<void> {
    this.throwIfSilentTooLong()
    const { backupId, operationId, cluster, systemId, startedAt } = this.#attempt
    const begin: Begin = {
      format: 'tidemark-begin',
      version: FORMAT_VERSION,
      backupId,
      operationId,
      number: this.#number,
      cluster,
      systemId,
      startedAt: startedAt.toISOString(),
      startLsn: this.startLsn === undefined ? null : formatLsn(this.startLsn),
      parents: [...this.parents],
      host: hostname(),
      pid: process.pid,
      requires: [],
    }
    const { clock } = this.#deps
    const askedMs = clock.monotonicMs()
    const document = this.#keyring.signer.sign(begin)
    const sha256 = createHash('sha256').update(document).digest('hex')
    const name = this.#layout.begin(backupId, this.#number)
    this.#number += 1
    await this.each(async (repository, signal) => {
      await this.requireIn(repository)
      await putProven(repository, name, document, sha256, signal)
      this.#last.set(repository.name, name)
    })
    this.#renewedMs = askedMs
  }

  /** Ten minutes after each renewal the next one. */
  keepRenewing(): void {
    this.#keeping = this.#keepRenewing()
  }

  async #keepRenewing(): Promise<void> {
    const { clock, logger, signal } = this.#deps
    const either = AbortSignal.any([this.#stop.signal, signal])
    while (!either.aborted) {
      try {
        await clock.sleep(RENEW_EVERY_MS, either)
        await this.renew()
      } catch (error) {
        if (either.aborted) return
        logger.warn({ err: error, backupId: this.#attempt.backupId }, 'begin object not renewed')
      }
    }
  }

  /** What this host can know: it has not been silent for too long by its own monotonic clock. @throws {LeaseLostError} */
  throwIfSilentTooLong(): void {
    if (this.#renewedMs === undefined) return
    const ageMs = this.#deps.clock.monotonicMs() - this.#renewedMs
    if (ageMs > LEASE_MS) throw new LeaseLostError(this.#attempt.backupId, ageMs)
  }

  /** What the repository knows: the newest begin object is there, and young by the store's own clock. @throws {LeaseLostError} */
  async requireIn({ name: repository, store }: Repository): Promise<void> {
    const last = this.#last.get(repository)
    if (last === undefined) return
    const { signal } = this.#deps
    const found = await store.stat(last, signal)
    const now = await store.storeTime(signal)
    const ageMs = found === undefined ? Number.POSITIVE_INFINITY : now.getTime() - found.modifiedAt.getTime()
    if (ageMs > LEASE_MS) throw new LeaseLostError(this.#attempt.backupId, ageMs)
  }

  /** As SetWriter.each; a lease that is lost in a required repository is said as such. */
  async each(action: (repository: Repository, signal: AbortSignal) => Promise<void>): Promise<void> {
    try {
      await this.#writer.each(action, this.#deps.signal)
    } catch (error) {
      throw error instanceof RequiredRepositoryError && error.cause instanceof LeaseLostError ? error.cause : error
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort()
    await Promise.all([this.#keeping, this.#renewing])
  }
}
