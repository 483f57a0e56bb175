/**
 * Removes what dead attempts left in a repository: docs/repository-format.md, section 12. The only code that deletes from one.
 *
 * Every age is the store's own: the time that it gave an object against the time that it has now. The time is asked for first and the
 * listings come after it, so ages are never taken too high. What cannot be read is never a reason to delete.
 */
import { openSignedDocument } from '@tidemark/crypto'
import {
  type Clock,
  type Logger,
  OperationalError,
  type Problem,
  type ReportProgress,
  problemOf,
  throwIfAborted,
} from '@tidemark/kernel'
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
import { SETTLE_MS, deleteMark, listMarks, putMark } from './swept-marks.ts'
import { SweepIncompleteError } from '../errors.ts'

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

/**
 * @throws {StoreUnavailableError} and its kind: what was deleted by then is gone, and the next sweep goes on.
 * @throws {SweepIncompleteError} in the end: some folders could not be deleted; all others were swept.
 */
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
  sweep.requireComplete()
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
  readonly #failed: { readonly backupId: string; readonly problem: Problem }[] = []
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

  /** @throws {SweepIncompleteError} */
  requireComplete(): void {
    const { name } = this.#repository
    if (this.#failed.length > 0) throw new SweepIncompleteError(name, this.#failed, this.#folders.length)
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
    const occupied = new Set<string>()
    const candidates = await this.#candidates(layout, folders, begins, records, occupied, nowMs)
    const marks = await listMarks(this.#repository, layout, signal)
    const debris = await this.#withoutParents(candidates, begins, records, nowMs)
    for (const backupId of debris) {
      throwIfAborted(signal, 'the sweep')
      await this.#unlessRefused(backupId, async () => {
        await this.#markFolder(layout, backupId, begins.has(backupId), marks.has(backupId))
        await this.#sweepFolder(layout, cluster, systemId, backupId, nowMs)
      })
    }
    const alone = await this.#sweepBegins(layout, begins, records, occupied, marks, nowMs)
    for (const [backupId, putMs] of marks) {
      if (this.#request.dryRun || nowMs - putMs <= DEBRIS_MS || alone.has(backupId)) continue
      await this.#unlessRefused(backupId, () => deleteMark(this.#repository, layout, backupId, this.#deps))
    }
  }

  /** One object that nobody may delete (a lock, a policy) does not keep the others. @throws what passes: then the store is away, not the object. */
  async #unlessRefused(backupId: string, work: () => Promise<void>): Promise<void> {
    const { signal, logger } = this.#deps
    try {
      await work()
    } catch (error) {
      if (signal.aborted || !(error instanceof OperationalError) || error.retry === 'backoff') throw error
      const problem = problemOf(error)
      this.#failed.push({ backupId, problem })
      const { code, message } = problem
      logger.warn({ repository: this.#repository.name, backupId, code, reason: message }, 'debris not swept')
    }
  }

  /** Before anything of a folder goes: something stays that tells a copy of it. An older mark would say that the folder is empty. */
  async #markFolder(layout: ClusterLayout, backupId: string, hasBegin: boolean, marked: boolean): Promise<void> {
    if (this.#request.dryRun) return
    // Where begin objects do, nothing is put: a store that is full has to be swept, too.
    if (!hasBegin) await putMark(this.#repository, layout, backupId, this.#deps.signal)
    else if (marked) await deleteMark(this.#repository, layout, backupId, this.#deps)
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

  /** Folders without a record, all of whose objects are old enough. @param occupied gets all without a record that are not empty. */
  async #candidates(
    layout: ClusterLayout,
    folders: ReadonlySet<string>,
    begins: ReadonlyMap<string, Begins>,
    records: ReadonlyMap<string, unknown>,
    occupied: Set<string>,
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
      occupied.add(backupId)
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
   * Old begin objects that speak for nothing any more: of an attempt that left nothing else, once that was so for SETTLE_MS, and of a committed
   * backup all but the newest, which a copy to another repository takes along. The listings may be hours old by now: each attempt is looked at once more.
   *
   * @param occupied folders that held something when this sweep began: their begin objects are for a later one.
   * @returns ids of which nothing but old begin objects is there.
   */
  async #sweepBegins(
    layout: ClusterLayout,
    begins: ReadonlyMap<string, Begins>,
    records: ReadonlyMap<string, unknown>,
    occupied: ReadonlySet<string>,
    marks: ReadonlyMap<string, number>,
    nowMs: number,
  ): Promise<Set<string>> {
    const { signal } = this.#deps
    const alone = new Set<string>()
    for (const [backupId, { names, newestMs }] of begins) {
      if (nowMs - newestMs <= DEBRIS_MS) continue
      const committed = records.has(backupId)
      if (!committed && occupied.has(backupId)) continue
      if (!committed) alone.add(backupId)
      const old = committed ? names.length - 1 : names.length
      const markMs = marks.get(backupId) ?? Number.NEGATIVE_INFINITY
      // A mark from before the newest begin object is of an earlier emptiness.
      const settled = committed || (markMs > newestMs && nowMs - markMs >= SETTLE_MS)
      if (settled && this.#request.dryRun) this.#begins += old
      if (this.#request.dryRun || old === 0) continue
      throwIfAborted(signal, 'the sweep')
      await this.#unlessRefused(backupId, async () => {
        if (settled) await this.#deleteBegins(layout, backupId, committed, nowMs)
        else if (markMs <= newestMs && !(await this.#holdsAny(layout, backupId)))
          await putMark(this.#repository, layout, backupId, signal)
      })
    }
    return alone
  }

  async #deleteBegins(layout: ClusterLayout, backupId: string, committed: boolean, nowMs: number): Promise<void> {
    const { store } = this.#repository
    const { clock, signal } = this.#deps
    const { objects } = await deleteLooking(store, { young: youngAt(nowMs), clock, signal }, async () => {
      const there = await listBegins(this.#repository, layout, backupId, signal)
      if (committed) return { signs: there.slice(-1), doomed: there.slice(0, -1) }
      // Whatever has come back is for the next sweep to judge.
      return { signs: [], doomed: (await this.#holdsAny(layout, backupId)) ? [] : there }
    })
    this.#begins += objects
  }

  async #holdsAny(layout: ClusterLayout, backupId: string): Promise<boolean> {
    for await (const _ of this.#repository.store.list(layout.base(backupId), { signal: this.#deps.signal })) return true
    return false
  }
}

function youngAt(nowMs: number): (entry: { readonly modifiedAt: Date }) => boolean {
  return ({ modifiedAt }) => nowMs - modifiedAt.getTime() <= DEBRIS_MS
}
