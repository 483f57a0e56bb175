/**
 * The begin object that protects a copy in its target, kept young from the first object to the record: docs/repository-format.md, section 11.
 *
 * It is the source's own newest one, under its own name: no key is there to sign another, and it names the parents whose folders the copy needs.
 * It is renewed beside the work, whatever the work is at. As with a writer's lease, one that is late or gone is given up, not renewed: objects
 * may have been swept in between.
 */
import { createHash } from 'node:crypto'
import { openSignedDocument } from '@tidemark/crypto'
import { type Clock, type Logger, OperationalError, throwIfAborted } from '@tidemark/kernel'
import {
  type ClusterLayout,
  LEASE_MS,
  LeaseLostError,
  MAX_BYTES,
  RENEW_EVERY_MS,
  type Repository,
  parseBeginName,
  putProven,
} from '@tidemark/repository'

export interface AnnouncementDeps {
  readonly publicKey: string
  readonly clock: Clock
  readonly logger: Logger
  readonly signal: AbortSignal
}

export class Announcement implements AsyncDisposable {
  readonly #to: Repository
  readonly #backupId: string
  readonly #name: string
  readonly #document: Buffer
  readonly #deps: AnnouncementDeps
  readonly #stop = new AbortController()
  #putMs: number | undefined
  #renewing: Promise<void> = Promise.resolve()

  private constructor(
    to: Repository,
    backupId: string,
    begin: { name: string; document: Buffer },
    deps: AnnouncementDeps,
  ) {
    this.#to = to
    this.#backupId = backupId
    this.#name = begin.name
    this.#document = begin.document
    this.#deps = deps
  }

  /** Stores it and keeps it young until disposed. Undefined where the source has none that is signed: then only their age protects objects. */
  static async begin(
    from: Repository,
    to: Repository,
    layout: ClusterLayout,
    backupId: string,
    deps: AnnouncementDeps,
  ): Promise<Announcement | undefined> {
    const begin = await newestBegin(from, layout, backupId, deps)
    if (begin === undefined) return undefined
    const announcement = new Announcement(to, backupId, begin, deps)
    await announcement.#put()
    announcement.#renewing = announcement.#keepRenewing()
    return announcement
  }

  get bytes(): number {
    return this.#document.length
  }

  /** It is there, and never was older than its lease: by this host's monotonic clock and by the store's own. @throws {LeaseLostError} */
  async require(): Promise<void> {
    const { clock, signal } = this.#deps
    const { store } = this.#to
    const silentMs = clock.monotonicMs() - (this.#putMs ?? clock.monotonicMs())
    if (silentMs > LEASE_MS) throw new LeaseLostError(this.#backupId, silentMs)
    const found = await store.stat(this.#name, signal)
    const now = await store.storeTime(signal)
    const ageMs = found === undefined ? Number.POSITIVE_INFINITY : now.getTime() - found.modifiedAt.getTime()
    if (ageMs > LEASE_MS) throw new LeaseLostError(this.#backupId, ageMs)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort()
    await this.#renewing
  }

  async #put(): Promise<void> {
    const { clock, signal } = this.#deps
    const askedMs = clock.monotonicMs()
    const sha256 = createHash('sha256').update(this.#document).digest('hex')
    await putProven(this.#to, this.#name, this.#document, sha256, signal)
    this.#putMs = askedMs
  }

  /** One after the other; ends for good once the lease is lost, which `require` then says. */
  async #keepRenewing(): Promise<void> {
    const { clock, logger, signal } = this.#deps
    const either = AbortSignal.any([this.#stop.signal, signal])
    for (;;) {
      try {
        await clock.sleep(RENEW_EVERY_MS, either)
        await this.require()
        throwIfAborted(either, 'renewing a begin object')
        await this.#put()
      } catch (error) {
        if (either.aborted) return
        logger.warn({ err: error, backupId: this.#backupId, repository: this.#to.name }, 'begin object not renewed')
        if (error instanceof LeaseLostError) return
      }
    }
  }
}

async function newestBegin(
  from: Repository,
  layout: ClusterLayout,
  backupId: string,
  { publicKey, logger, signal }: AnnouncementDeps,
): Promise<{ name: string; document: Buffer } | undefined> {
  let newest: { name: string; number: number } | undefined
  for await (const { name } of from.store.list(layout.beginsOf(backupId), { signal })) {
    const number = parseBeginName(name)?.number ?? -1
    if (number > (newest?.number ?? -1)) newest = { name, number }
  }
  if (newest === undefined) return undefined
  const { name } = newest
  try {
    const document = await from.store.get(name, { signal, maxBytes: MAX_BYTES.begin })
    openSignedDocument(document, publicKey, `${name} in ${from.name}`)
    return { name, document }
  } catch (error) {
    if (!(error instanceof OperationalError) || error.retry !== 'never') throw error
    // It protects the copy while that lasts, and nothing reads it later.
    logger.warn({ repository: from.name, code: error.code, reason: error.message }, 'begin object not copied')
    return undefined
  }
}
