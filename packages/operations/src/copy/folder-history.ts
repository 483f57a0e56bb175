/**
 * Which folders of a copy's target a sweep may be at, and until when.
 *
 * A sweep begins on a folder after 24 hours of silence there, and stops at the first sign of life. So where the times of a folder's objects have
 * a gap of half of that, a sweep may have looked before the sign that ended the silence, and its last request may still be under way.
 */
import { OperationalError } from '@tidemark/kernel'
import { type ClusterLayout, type Repository, listRecordNames, readRecord } from '@tidemark/repository'

/** Half of the age at which a sweep may begin, by the same clock. */
const SILENCE_MS = 12 * 3_600_000

export interface SilentFolder {
  readonly backupId: string
  /** When the silence ended, by the store's clock; undefined while it lasts. */
  readonly awakeMs: number | undefined
}

export interface FoldersOfCopy {
  readonly cluster: string
  readonly systemId: string
  readonly backupIds: readonly string[]
  /** base64; what the target's records are held against. */
  readonly publicKey: string
}

/**
 * Folders that were silent for half a day, before now or before what was put there last, or that bear a sweep's mark; without those that a record
 * speaks for: its own, and those of its parents.
 */
export async function silentFolders(
  repository: Repository,
  layout: ClusterLayout,
  { cluster, systemId, backupIds, publicKey }: FoldersOfCopy,
  nowMs: number,
  signal: AbortSignal,
): Promise<SilentFolder[]> {
  const silent = new Map<string, SilentFolder>()
  for (const backupId of backupIds) {
    const times: number[] = []
    for (const prefix of [layout.base(backupId), layout.beginsOf(backupId)])
      for await (const { modifiedAt } of repository.store.list(prefix, { signal })) times.push(modifiedAt.getTime())
    const marked = (await repository.store.stat(layout.sweptMark(backupId), signal)) !== undefined
    const found = marked ? { awakeMs: undefined } : silenceOf(times, nowMs)
    if (found !== undefined) silent.set(backupId, { backupId, ...found })
  }
  if (silent.size === 0) return []
  const records = []
  for await (const at of listRecordNames(repository, cluster, signal)) if (at.systemId === systemId) records.push(at)
  // What has a record is no debris, however old; nor is what a record's packs lie in.
  for (const { backupId } of records) silent.delete(backupId)
  for (const at of records.toReversed()) {
    if (silent.size === 0) break
    try {
      const { parents } = await readRecord(repository, publicKey, at, signal)
      for (const parent of parents) silent.delete(parent)
    } catch (error) {
      // It protects what it names from a sweep; which that is cannot be told, and waiting harms nobody.
      if (!(error instanceof OperationalError) || error.retry !== 'never') throw error
    }
  }
  return [...silent.values()]
}

/** The last silence of at least half a day among these times, and when it ended; undefined where there was none. */
export function silenceOf(
  times: readonly number[],
  nowMs: number,
): { readonly awakeMs: number | undefined } | undefined {
  const descending = Float64Array.from(times).sort().toReversed()
  let later: number | undefined
  for (const time of descending) {
    if ((later ?? nowMs) - time >= SILENCE_MS) return { awakeMs: later }
    later = time
  }
  return undefined
}
