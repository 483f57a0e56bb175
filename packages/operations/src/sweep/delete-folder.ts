/** Deletes one folder of debris: packs, file list, source and pack table, then the begin objects, oldest first. */
import { type ClusterLayout, type Repository, parseBeginName } from '@tidemark/repository'
import type { ObjectEntry } from '@tidemark/storage'

/** One request; what a second look can save is at most this much. */
const BATCH = 1000

export interface DeleteFolderOptions {
  /** Such an object means that somebody lives there: nothing more is deleted. */
  readonly young: (entry: ObjectEntry) => boolean
  readonly dryRun: boolean
  readonly signal: AbortSignal
}

/**
 * Begin objects go last, so a sweep that dies in the middle leaves a folder that the next one takes for what it is.
 *
 * Before each request the begin objects are looked at once more: a copy that goes on with an old folder stores its own first.
 */
export async function deleteFolder(
  repository: Repository,
  layout: ClusterLayout,
  backupId: string,
  { young, dryRun, signal }: DeleteFolderOptions,
): Promise<{ objects: number; bytes: number; stopped: boolean }> {
  const { store } = repository
  const begins = async (): Promise<ObjectEntry[]> => {
    const found: ObjectEntry[] = []
    for await (const entry of store.list(layout.beginsOf(backupId), { signal }))
      if (parseBeginName(entry.name) !== undefined) found.push(entry)
    return found.toSorted((a, b) => numberOf(a) - numberOf(b))
  }
  let objects = 0
  let bytes = 0
  const remove = async (entries: readonly ObjectEntry[]): Promise<boolean> => {
    if (entries.some(young) || (await begins()).some(young)) return false
    if (!dryRun)
      await store.delete(
        entries.map(({ name }) => name),
        signal,
      )
    objects += entries.length
    for (const { size } of entries) bytes += size
    return true
  }
  for await (const batch of batches(store.list(layout.base(backupId), { signal })))
    if (!(await remove(batch))) return { objects, bytes, stopped: true }
  for await (const batch of batches(await begins()))
    if (!(await remove(batch))) return { objects, bytes, stopped: true }
  return { objects, bytes, stopped: false }
}

function numberOf({ name }: ObjectEntry): number {
  return parseBeginName(name)?.number ?? 0
}

async function* batches<T>(items: AsyncIterable<T> | Iterable<T>): AsyncGenerator<T[]> {
  let batch: T[] = []
  for await (const item of items) {
    batch.push(item)
    if (batch.length < BATCH) continue
    yield batch
    batch = []
  }
  if (batch.length > 0) yield batch
}
