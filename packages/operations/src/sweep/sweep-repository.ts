/**
 * Removes what dead attempts left in a repository: docs/repository-format.md, section 12. The only code that deletes from one.
 *
 * Every age is the store's own: the time that it gave an object against the time that it has now. The time is asked for first and the
 * listings come after it, so ages are never taken too high. What cannot be read is never a reason to delete.
 */
import { openSignedDocument } from '@tidemark/crypto'
import { type Clock, type Logger, OperationalError, type ReportProgress, throwIfAborted } from '@tidemark/kernel'
import {
  CLUSTERS,
  CLUSTER_NAME,
  ClusterLayout,
  DocumentDamagedError,
  MAX_BYTES,
  type RecordName,
  type Repository,
  beginSchema,
  listRecordNames,
  parseBeginName,
  parseDocument,
  readRecord,
} from '@tidemark/repository'
import type { ObjectEntry } from '@tidemark/storage'
import { deleteFolder, listBegins } from './delete-folder.ts'
import { deleteLooking } from './delete-looking.ts'

const HOUR_MS = 3_600_000
/** No object of a folder may be younger, if it is to be debris. An attempt that is silent for an hour gives up. */
const DEBRIS_MS = 24 * HOUR_MS
const LISTED = 1000
const PARENTS_KEPT = 10_000

export interface SweepRequest {
  readonly cluster: string | undefined
  /** Says what would go, and deletes nothing. */
  readonly dryRun: boolean
}

export interface SweepDeps {
  /** base64; what begin objects and records are held against. No secret is needed. */
  readonly publicKey: string
  readonly clock: Clock
  readonly logger: Logger
  readonly signal: AbortSignal
  readonly progress: ReportProgress
}

export interface SweptFolder {
  readonly cluster: string
  readonly systemId: string
  readonly backupId: string
  readonly objects: number
  readonly bytes: number
}

export interface SweepOutcome {
  readonly name: string
  /** At most 1,000 are named. */
  readonly folders: readonly SweptFolder[]
  readonly objects: number
  readonly bytes: number
  /** Begin objects of committed backups and of attempts that left nothing else. */
  readonly begins: number
  /** Folders without a record that are not debris, or not yet: `young`, `parent` (somebody uses its packs), `undecided` (a document that may speak for it cannot be read). */
  readonly kept: readonly { readonly backupId: string; readonly why: 'young' | 'parent' | 'undecided' }[]
}

interface Begins {
  readonly names: { readonly name: string; readonly number: number }[]
  newestMs: number
}

/** @throws {StoreUnavailableError} and its kind: what was deleted by then is gone, and the next sweep goes on. */
export async function sweepRepository(
  repository: Repository,
  request: SweepRequest,
  deps: SweepDeps,
): Promise<SweepOutcome> {
  const sweep = new Sweep(repository, request, deps)
  const clusters = request.cluster === undefined ? undefined : [`${CLUSTERS}${request.cluster}/`]
  for await (const cluster of clusters ?? repository.store.listFolders(CLUSTERS, deps.signal)) {
    for await (const system of repository.store.listFolders(cluster, deps.signal)) await sweep.system(system)
  }
  return sweep.outcome
}

class Sweep {
  readonly #repository: Repository
  readonly #request: SweepRequest
  readonly #deps: SweepDeps
  readonly #folders: SweptFolder[] = []
  readonly #kept: SweepOutcome['kept'][number][] = []
  #objects = 0
  #bytes = 0
  #begins = 0
  /** What young begin objects said when they were read, so that each is read once. */
  readonly #parents = new Map<string, readonly string[] | 'unreadable'>()

  constructor(repository: Repository, request: SweepRequest, deps: SweepDeps) {
    this.#repository = repository
    this.#request = request
    this.#deps = deps
  }

  get outcome(): SweepOutcome {
    const { name } = this.#repository
    const [folders, objects, bytes, begins, kept] = [
      this.#folders,
      this.#objects,
      this.#bytes,
      this.#begins,
      this.#kept,
    ]
    return { name, folders, objects, bytes, begins, kept }
  }

  /** One database system under one cluster's name. Folders of other names are not ours. */
  async system(folder: string): Promise<void> {
    const [, cluster, systemId] = /^clusters\/([^/]+)\/([^/]+)\/$/.exec(folder) ?? []
    if (cluster === undefined || systemId === undefined) return
    if (!CLUSTER_NAME.test(cluster) || !/^\d{1,20}$/.test(systemId)) return
    const { signal } = this.#deps
    const layout = new ClusterLayout(cluster, systemId)
    // The order matters: whatever comes to be after `now` is young, and an attempt that commits meanwhile has a young begin object.
    const nowMs = (await this.#repository.store.storeTime(signal)).getTime()
    const begins = await this.#listBegins(layout)
    const folders = await this.#foldersOf(layout)
    const records = await this.#listRecords(cluster, systemId)
    const candidates = await this.#candidates(layout, folders, begins, records, nowMs)
    const debris = await this.#withoutParents(candidates, begins, records, nowMs)
    for (const backupId of debris) {
      throwIfAborted(signal, 'the sweep')
      await this.#sweepFolder(layout, cluster, systemId, backupId, nowMs)
    }
    await this.#sweepBegins(layout, begins, records, folders, nowMs)
  }

  async #listBegins(layout: ClusterLayout): Promise<Map<string, Begins>> {
    const begins = new Map<string, Begins>()
    for await (const { name, modifiedAt } of this.#repository.store.list(layout.begins, {
      signal: this.#deps.signal,
    })) {
      const parsed = parseBeginName(name)
      if (parsed === undefined) continue
      const known = begins.get(parsed.backupId) ?? { names: [], newestMs: Number.NEGATIVE_INFINITY }
      known.names.push({ name, number: parsed.number })
      known.newestMs = Math.max(known.newestMs, modifiedAt.getTime())
      begins.set(parsed.backupId, known)
    }
    for (const { names } of begins.values()) names.sort((a, b) => a.number - b.number)
    return begins
  }

  async #foldersOf(layout: ClusterLayout): Promise<Set<string>> {
    const ids = new Set<string>()
    for await (const folder of this.#repository.store.listFolders(layout.bases, this.#deps.signal)) {
      const backupId = folder.slice(layout.bases.length, -1)
      if (/^[0-9a-f]{16}$/.test(backupId)) ids.add(backupId)
    }
    return ids
  }

  /** Ids that have a record, whether or not it can be trusted, and when the store got it. */
  async #listRecords(cluster: string, systemId: string): Promise<Map<string, (RecordName & { modifiedMs: number })[]>> {
    const records = new Map<string, (RecordName & { modifiedMs: number })[]>()
    for await (const at of listRecordNames(this.#repository, cluster, this.#deps.signal)) {
      if (at.systemId !== systemId) continue
      const known = records.get(at.backupId)
      const entry = { ...at, modifiedMs: at.modifiedAt.getTime() }
      if (known === undefined) records.set(at.backupId, [entry])
      else known.push(entry)
    }
    return records
  }

  /** Folders without a record, all of whose objects are old enough. */
  async #candidates(
    layout: ClusterLayout,
    folders: ReadonlySet<string>,
    begins: ReadonlyMap<string, Begins>,
    records: ReadonlyMap<string, unknown>,
    nowMs: number,
  ): Promise<string[]> {
    const candidates: string[] = []
    for (const backupId of folders) {
      if (records.has(backupId)) continue
      let newestMs = begins.get(backupId)?.newestMs ?? Number.NEGATIVE_INFINITY
      let found = false
      for await (const { modifiedAt } of this.#repository.store.list(layout.base(backupId), {
        signal: this.#deps.signal,
      })) {
        newestMs = Math.max(newestMs, modifiedAt.getTime())
        found = true
      }
      if (!found) continue
      if (nowMs - newestMs > DEBRIS_MS) candidates.push(backupId)
      else this.#kept.push({ backupId, why: 'young' })
    }
    return candidates
  }

  /** Those that no live attempt and no record names as a parent. */
  async #withoutParents(
    candidates: readonly string[],
    begins: ReadonlyMap<string, Begins>,
    records: ReadonlyMap<string, readonly (RecordName & { modifiedMs: number })[]>,
    nowMs: number,
  ): Promise<string[]> {
    const left = new Set(candidates)
    const keep = (backupId: string, why: 'parent' | 'undecided'): void => {
      if (left.delete(backupId)) this.#kept.push({ backupId, why })
    }
    for (const backupId of candidates) {
      // Its own, too: a document of another release may mean more than this one knows.
      const own = begins.get(backupId)?.names.at(-1)
      if (own !== undefined && (await this.#parentsOfBegin(own.name)) === undefined) keep(backupId, 'undecided')
    }
    for (const { names, newestMs } of begins.values()) {
      if (left.size === 0) return []
      const newest = names.at(-1)
      if (newest === undefined || nowMs - newestMs > DEBRIS_MS) continue
      const parents = await this.#parentsOfBegin(newest.name)
      if (parents === undefined) for (const id of left) keep(id, 'undecided')
      else for (const id of parents) keep(id, 'parent')
    }
    // All of them, whatever the times say: a copy made by other means, or a change of storage class, gives objects new ones.
    for (const at of [...records.values()].flat()) {
      if (left.size === 0) break
      const parents = await this.#parentsOfRecord(at)
      if (parents === undefined) for (const id of left) keep(id, 'undecided')
      else for (const id of parents) keep(id, 'parent')
    }
    return [...left]
  }

  async #parentsOfBegin(name: string): Promise<readonly string[] | undefined> {
    return this.#unlessUnreadable(async () => {
      const what = `begin object ${name} in ${this.#repository.name}`
      const { signal } = this.#deps
      const bytes = await this.#repository.store.get(name, { signal, maxBytes: MAX_BYTES.begin })
      const begin = parseDocument(beginSchema, openSignedDocument(bytes, this.#deps.publicKey, what), what)
      const own = new ClusterLayout(begin.cluster, begin.systemId).begin(begin.backupId, begin.number)
      // A copy of another attempt's would hide what the true one says.
      if (own !== name) throw new DocumentDamagedError(what, 'it lies under another name than its own')
      return begin.parents
    })
  }

  async #parentsOfRecord(at: RecordName): Promise<readonly string[] | undefined> {
    return this.#unlessUnreadable(async () => {
      return (await readRecord(this.#repository, this.#deps.publicKey, at, this.#deps.signal)).parents
    })
  }

  async #unlessUnreadable<T>(read: () => Promise<T>): Promise<T | undefined> {
    try {
      return await read()
    } catch (error) {
      if (!(error instanceof OperationalError) || error.retry !== 'never') throw error
      this.#deps.logger.warn(
        { repository: this.#repository.name, code: error.code, reason: error.message },
        'unreadable: what it may speak for is not swept',
      )
      return undefined
    }
  }

  async #sweepFolder(
    layout: ClusterLayout,
    cluster: string,
    systemId: string,
    backupId: string,
    nowMs: number,
  ): Promise<void> {
    const { dryRun } = this.#request
    const { clock, signal, logger, progress } = this.#deps
    const young = youngAt(nowMs)
    const { objects, bytes, stopped } = await deleteFolder(this.#repository, layout, backupId, {
      young,
      dryRun,
      clock,
      signal,
      children: () => this.#youngChildren(layout, backupId, young),
    })
    if (stopped !== undefined) this.#kept.push({ backupId, why: stopped })
    this.#objects += objects
    this.#bytes += bytes
    if (objects === 0) return
    if (this.#folders.length < LISTED) this.#folders.push({ cluster, systemId, backupId, objects, bytes })
    if (!dryRun) logger.info({ repository: this.#repository.name, cluster, backupId, objects, bytes }, 'debris swept')
    progress({ phase: `sweep of ${this.#repository.name}`, bytesDone: this.#bytes, files: this.#objects })
  }

  /** Young begin objects that name the folder as a parent's, or cannot be read: a copy or an adopter that came after the decision. */
  async #youngChildren(
    layout: ClusterLayout,
    backupId: string,
    young: (entry: ObjectEntry) => boolean,
  ): Promise<ObjectEntry[]> {
    const { store } = this.#repository
    const children: ObjectEntry[] = []
    for await (const entry of store.list(layout.begins, { signal: this.#deps.signal })) {
      if (parseBeginName(entry.name) === undefined || !young(entry)) continue
      const key = `${entry.name} ${entry.modifiedAt.getTime()} ${entry.size}`
      let parents = this.#parents.get(key)
      if (parents === undefined) {
        parents = (await this.#parentsOfBegin(entry.name)) ?? 'unreadable'
        if (this.#parents.size >= PARENTS_KEPT) this.#parents.clear()
        this.#parents.set(key, parents)
      }
      if (parents === 'unreadable' || parents.includes(backupId)) children.push(entry)
    }
    return children
  }

  /**
   * Old begin objects that speak for nothing any more: of an attempt that left nothing else, and of a committed backup all but the newest,
   * which a copy to another repository takes along. The listings may be hours old by now: each attempt is looked at once more.
   */
  async #sweepBegins(
    layout: ClusterLayout,
    begins: ReadonlyMap<string, Begins>,
    records: ReadonlyMap<string, unknown>,
    folders: ReadonlySet<string>,
    nowMs: number,
  ): Promise<void> {
    const { store } = this.#repository
    const { clock, signal } = this.#deps
    for (const [backupId, { names, newestMs }] of begins) {
      if (nowMs - newestMs <= DEBRIS_MS) continue
      const committed = records.has(backupId)
      if (!committed && folders.has(backupId)) continue
      const old = committed ? names.length - 1 : names.length
      if (this.#request.dryRun) this.#begins += old
      if (this.#request.dryRun || old === 0) continue
      const { objects } = await deleteLooking(store, { young: youngAt(nowMs), clock, signal }, async () => {
        const there = await listBegins(this.#repository, layout, backupId, signal)
        if (committed) return { signs: there.slice(-1), doomed: there.slice(0, -1) }
        for await (const entry of store.list(layout.base(backupId), { signal })) return { signs: [entry], doomed: [] }
        return { signs: [], doomed: there }
      })
      this.#begins += objects
    }
  }
}

function youngAt(nowMs: number): (entry: { readonly modifiedAt: Date }) => boolean {
  return ({ modifiedAt }) => nowMs - modifiedAt.getTime() <= DEBRIS_MS
}
