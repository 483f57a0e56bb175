/**
 * Which backup is the latest: the newest intact one by what the source said of it, as far as two clocks do not contradict that.
 *
 * Timeline and stop LSN order the backups of one database system, but not for ever: whoever restores an older backup once more, without the
 * archive in reach, comes to a timeline id that was used before, at a lower LSN. The backups of the lineage that was given up then look later.
 * Only clocks tell: the workers' own, and that of the store that got the records. One of them alone may be wrong (a host years off, a copy made
 * years later). Where both say the opposite of the LSNs, a person decides: a choice would be a guess.
 */
import { type Problem, parseLsn, problemOf, soonestToPass, throwIfAborted } from '@tidemark/kernel'
import { BackupAmbiguousError, BackupNotFoundError, LatestUncertainError } from '../errors.ts'
import type { Repository } from '../set/repository.ts'
import type { CommitRecord } from './documents.ts'
import {
  type FoundBackup,
  type RecordAt,
  type RecordName,
  clustersOf,
  cursorOf,
  readListed,
  readRecord,
  scanRecords,
} from './read-records.ts'

/** Names held at once while looking for the newest intact backup. */
const LOOKED_AT = 100
/** Records by name, beside those that the store got last, that are compared with the newest one. */
const COMPARED = 15
const READ_AT_ONCE = 8
/** What a worker's clock may be off before it counts as a witness: object stores refuse requests of hosts that are further off than this. */
const CLOCK_SLACK_MS = 15 * 60_000

interface Candidate extends FoundBackup {
  /** When each repository that holds it got its record, by that repository's own clock. */
  readonly storedMs: Map<Repository, number>
}

/**
 * @param repositories where to look, in this order.
 * @throws {LatestUncertainError} one of several did not answer, or its newest record cannot be read anywhere; or LSNs and clocks contradict each other.
 * @throws {BackupNotFoundError} @throws {BackupAmbiguousError} more than one cluster has backups; what reading the record throws.
 */
export async function findLatest(
  publicKey: string,
  repositories: readonly Repository[],
  cluster: string | undefined,
  signal: AbortSignal,
): Promise<FoundBackup> {
  const candidates = new Map<string, Candidate>()
  const unread: { readonly name: string; readonly problem: Problem; readonly error: unknown }[] = []
  for (const repository of repositories) {
    try {
      throwIfAborted(signal, 'the search for the backup')
      for (const [at, record] of await intactOnes(repository, repositories, publicKey, cluster, signal)) {
        const candidate = candidates.get(at.name) ?? { repository, record, storedMs: new Map<Repository, number>() }
        candidate.storedMs.set(repository, at.modifiedAt.getTime())
        candidates.set(at.name, candidate)
      }
    } catch (error) {
      if (signal.aborted || error instanceof BackupAmbiguousError) throw error
      unread.push({ name: repository.name, problem: problemOf(error), error })
    }
  }
  if (candidates.size === 0 && unread.length > 0) throw soonestToPass(unread.map(({ error }) => error))
  if (unread.length > 0) throw LatestUncertainError.unanswered(unread.map(({ name, problem }) => ({ name, problem })))
  const clusters = new Set([...candidates.values()].map(({ record }) => record.cluster))
  if (clusters.size > 1) throw ambiguous(clusters)
  // First within each system: LSNs of one do not compare with another's (before and after pg_upgrade, say), and mixed with the clocks' word they give no order.
  const systems = Map.groupBy(candidates.values(), ({ record }) => record.systemId)
  const [latest] = [...systems.values()]
    .flatMap(latestOfSystem)
    .toSorted((a, b) => Date.parse(b.record.stoppedAt) - Date.parse(a.record.stoppedAt))
  if (latest === undefined) throw new BackupNotFoundError('latest', cluster)
  return { repository: latest.repository, record: latest.record }
}

function ambiguous(clusters: Iterable<string>): BackupAmbiguousError {
  return new BackupAmbiguousError(
    'latest',
    [...clusters].map((name) => `latest of ${name}`),
  )
}

/** None or one. @throws {LatestUncertainError} */
function latestOfSystem(candidates: readonly Candidate[]): Candidate[] {
  const [latest, ...others] = candidates.toSorted((a, b) => (isLater(a.record, b.record) ? -1 : 1))
  if (latest === undefined) return []
  const contrary = others.find((other) => clocksSayLater(other, latest))
  if (contrary !== undefined) throw LatestUncertainError.contrary(latest.record, contrary.record)
  return [latest]
}

/** Of two backups of one system: by timeline and stop LSN, as the source gave them. */
function isLater(a: CommitRecord, b: CommitRecord): boolean {
  if (a.timeline !== b.timeline) return a.timeline > b.timeline
  if (a.stopLsn !== b.stopLsn) return parseLsn(a.stopLsn) > parseLsn(b.stopLsn)
  return Date.parse(a.stoppedAt) > Date.parse(b.stoppedAt)
}

/** Both clocks: the workers' by more than they may be off, and that of every store that holds both. */
function clocksSayLater(a: Candidate, b: Candidate): boolean {
  if (Date.parse(a.record.stoppedAt) - Date.parse(b.record.stoppedAt) <= CLOCK_SLACK_MS) return false
  const both = [...a.storedMs.keys()].filter((repository) => b.storedMs.has(repository))
  // One store's clock orders what it got, even where copies came minutes after one another.
  if (both.length > 0)
    return both.every((repository) => (a.storedMs.get(repository) ?? 0) > (b.storedMs.get(repository) ?? 0))
  return Math.min(...a.storedMs.values()) - Math.min(...b.storedMs.values()) > CLOCK_SLACK_MS
}

/**
 * Intact backups of a repository among which its latest is. Names are in the order of workers' clocks, so they only say where to look: the records
 * that are newest by name, and those that the store got last.
 *
 * @throws what reading a record throws that is newer by name than the first intact one: it might be the newest.
 */
async function intactOnes(
  repository: Repository,
  repositories: readonly Repository[],
  publicKey: string,
  cluster: string | undefined,
  signal: AbortSignal,
): Promise<[RecordName, CommitRecord][]> {
  const clusters = cluster === undefined ? await clustersOf(repository, signal) : [cluster]
  if (clusters.length > 1) throw ambiguous(clusters)
  let before: string | undefined
  do {
    const { names, lastStored } = await scanRecords(repository, cluster, { limit: LOOKED_AT, before }, signal)
    for (const [i, at] of names.entries()) {
      const record = await readAnywhere(repository, repositories, publicKey, at, signal)
      if (record.verdict !== 'intact') continue
      const others = [...names.slice(i + 1, i + 1 + COMPARED), ...lastStored].filter(({ name }) => name !== at.name)
      return [[at, record], ...(await readIntact(repository, publicKey, others, signal))]
    }
    const last = names.at(-1)
    before = names.length < LOOKED_AT || last === undefined ? undefined : cursorOf(last)
  } while (before !== undefined)
  return []
}

/** A record has the same bytes in every repository: one that is damaged here may be whole elsewhere. @throws what the first one threw. */
async function readAnywhere(
  repository: Repository,
  repositories: readonly Repository[],
  publicKey: string,
  at: RecordAt,
  signal: AbortSignal,
): Promise<CommitRecord> {
  try {
    return await readRecord(repository, publicKey, at, signal)
  } catch (error) {
    if (problemOf(error).retry !== 'never') throw error
    for (const other of repositories) {
      if (other === repository) continue
      const record = await readRecord(other, publicKey, at, signal).catch(() => undefined)
      if (record !== undefined) return record
    }
    throw error
  }
}

/** Those that can be read and are intact. */
async function readIntact(
  repository: Repository,
  publicKey: string,
  names: readonly RecordName[],
  signal: AbortSignal,
): Promise<[RecordName, CommitRecord][]> {
  const left = [...new Map(names.map((at) => [at.name, at])).values()]
  const intact: [RecordName, CommitRecord][] = []
  for (let first = 0; first < left.length; first += READ_AT_ONCE) {
    const batch = left.slice(first, first + READ_AT_ONCE)
    for (const listed of await Promise.all(batch.map((at) => readListed(repository, publicKey, at, signal))))
      if ('record' in listed && listed.record.verdict === 'intact') intact.push([listed, listed.record])
  }
  return intact
}
