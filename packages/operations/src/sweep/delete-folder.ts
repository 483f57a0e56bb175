/**
 * Deletes one folder of debris: packs, file list, source and pack table.
 *
 * Its begin objects stay. A request that was not answered may still take effect half an hour later, on whatever has come back under the same
 * names: as long as an old begin object lies there, a copy sees that the folder was silent, and waits. A later sweep takes them.
 */
import { type ClusterLayout, type Repository, parseBeginName } from '@tidemark/repository'
import type { ObjectEntry } from '@tidemark/storage'
import { type DeleteLookingOptions, type Deleted, REQUEST_OBJECTS, deleteLooking } from './delete-looking.ts'

export async function deleteFolder(
  repository: Repository,
  layout: ClusterLayout,
  backupId: string,
  options: DeleteLookingOptions & {
    readonly dryRun: boolean
    /** A sign of life for each young begin object that names this folder as a parent's, asked for again and again. */
    readonly children: () => Promise<readonly ObjectEntry[]>
  },
): Promise<Deleted> {
  const { store } = repository
  const { signal } = options
  if (options.dryRun) return countFolder(repository, layout, backupId, options)
  // Each time from the beginning, so that what is put in between is seen.
  return deleteLooking(store, options, async () => ({
    signs: [...(await options.children()), ...(await listBegins(repository, layout, backupId, signal))],
    doomed: await firstOf(store.list(layout.base(backupId), { signal }), REQUEST_OBJECTS),
  }))
}

/** An attempt's begin objects, oldest first. */
export async function listBegins(
  { store }: Repository,
  layout: ClusterLayout,
  backupId: string,
  signal: AbortSignal,
): Promise<ObjectEntry[]> {
  const found: ObjectEntry[] = []
  for await (const entry of store.list(layout.beginsOf(backupId), { signal }))
    if (parseBeginName(entry.name) !== undefined) found.push(entry)
  return found.toSorted((a, b) => numberOf(a) - numberOf(b))
}

async function countFolder(
  repository: Repository,
  layout: ClusterLayout,
  backupId: string,
  { young, signal }: DeleteLookingOptions,
): Promise<Deleted> {
  let objects = 0
  let bytes = 0
  for await (const entry of repository.store.list(layout.base(backupId), { signal })) {
    if (young(entry)) return { objects: 0, bytes: 0, stopped: 'young' }
    objects += 1
    bytes += entry.size
  }
  if ((await listBegins(repository, layout, backupId, signal)).some(young))
    return { objects: 0, bytes: 0, stopped: 'young' }
  return { objects, bytes, stopped: undefined }
}

function numberOf({ name }: ObjectEntry): number {
  return parseBeginName(name)?.number ?? 0
}

async function firstOf<T>(items: AsyncIterable<T>, count: number): Promise<T[]> {
  const first: T[] = []
  for await (const item of items) {
    first.push(item)
    if (first.length === count) break
  }
  return first
}
