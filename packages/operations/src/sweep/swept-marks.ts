/**
 * What a sweep remembers of folders that it emptied: docs/repository-format.md, section 12.
 *
 * A delete that was asked for and not answered may take effect later, for as long as SETTLE_MS after its look. While an old begin object or a mark
 * lies there, a copy into the folder waits for that. So begin objects go only once a mark is that old which was put when the folder was seen empty;
 * and where a folder has none, a mark is put before anything goes.
 */
import type { ClusterLayout, Repository } from '@tidemark/repository'
import type { Clock } from '@tidemark/kernel'
import { deleteLooking } from './delete-looking.ts'

/**
 * After this long, no request of a sweep that had looked before can take effect any more: it goes out within a minute of its look, and object
 * stores refuse one that is stamped more than 15 minutes from their own time, in either direction.
 */
export const SETTLE_MS = 31 * 60_000

interface Deps {
  readonly clock: Clock
  readonly signal: AbortSignal
}

/** When each mark was put, by the store's clock, for each backup id. */
export async function listMarks(
  { store }: Repository,
  layout: ClusterLayout,
  signal: AbortSignal,
): Promise<Map<string, number>> {
  const marks = new Map<string, number>()
  for await (const { name, modifiedAt } of store.list(layout.swept, { signal }))
    marks.set(name.slice(layout.swept.length), modifiedAt.getTime())
  return marks
}

/** Puts it, or makes it young again. */
export async function putMark(
  { store }: Repository,
  layout: ClusterLayout,
  backupId: string,
  signal: AbortSignal,
): Promise<void> {
  await store.put(layout.sweptMark(backupId), Buffer.from('swept\n'), { signal })
}

/** Whatever its age: one that is gone too early makes a sweep wait for another one. */
export async function deleteMark(
  repository: Repository,
  layout: ClusterLayout,
  backupId: string,
  deps: Deps,
): Promise<void> {
  const name = layout.sweptMark(backupId)
  await deleteLooking(repository.store, { ...deps, young: () => false }, async () => {
    const found = await repository.store.stat(name, deps.signal)
    return { signs: [], doomed: found === undefined ? [] : [{ name, size: found.size, modifiedAt: found.modifiedAt }] }
  })
}
