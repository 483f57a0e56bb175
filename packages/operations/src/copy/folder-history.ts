/**
 * Which folders of a copy's target a sweep may be at, and until when.
 *
 * A sweep begins on a folder after 24 hours of silence there, and stops at the first sign of life. So where the times of a folder's objects have
 * a gap of half of that, a sweep may have looked before the sign that ended the silence, and its last request may still be under way.
 */
import { type ClusterLayout, type Repository, listRecordNames } from '@tidemark/repository'

/** Half of the age at which a sweep may begin, by the same clock. */
const SILENCE_MS = 12 * 3_600_000

export interface SilentFolder {
  readonly backupId: string
  /** When the silence ended, by the store's clock; undefined while it lasts. */
  readonly awakeMs: number | undefined
}

/** Folders without a record that were silent for half a day, before now or before what was put there last. */
export async function silentFolders(
  repository: Repository,
  layout: ClusterLayout,
  cluster: string,
  backupIds: readonly string[],
  nowMs: number,
  signal: AbortSignal,
): Promise<SilentFolder[]> {
  const silent = new Map<string, SilentFolder>()
  for (const backupId of backupIds) {
    const times: number[] = []
    for (const prefix of [layout.base(backupId), layout.beginsOf(backupId)])
      for await (const { modifiedAt } of repository.store.list(prefix, { signal })) times.push(modifiedAt.getTime())
    const found = silenceOf(times, nowMs)
    if (found !== undefined) silent.set(backupId, { backupId, ...found })
  }
  if (silent.size === 0) return []
  // What has a record is no debris, however old.
  for await (const { backupId } of listRecordNames(repository, cluster, signal)) silent.delete(backupId)
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
