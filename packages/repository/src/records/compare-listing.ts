/** Holds what a repository lists against a backup's pack table, as both go by: no names are held but those that are wrong. */
import { type ClusterLayout, PACK_TABLE } from '../layout.ts'
import type { Repository } from '../set/repository.ts'
import { missingWal } from '../wal/wal-store.ts'
import type { PackTable } from './pack-table.ts'

export interface ListingDifference {
  /** Not there, or of another size. At most NAMES_KEPT; relative to the backup's folder, or to the cluster's. */
  readonly missing: readonly string[]
  /** In the backup's own folder and not in its table. */
  readonly unexpected: readonly string[]
}

const NAMES_KEPT = 1000

/**
 * Everything that the table names: the backup's own folder, its packs in other folders, WAL and history.
 *
 * @param tableBytes size of the pack table itself; undefined where it is not there yet.
 */
export async function compareListing(
  repository: Repository,
  layout: ClusterLayout,
  table: PackTable,
  tableBytes: number | undefined,
  signal: AbortSignal,
): Promise<ListingDifference> {
  const { present, unexpected, others } = await presentObjects(repository, layout, table, tableBytes, signal)
  const missing: string[] = []
  const miss = (name: string): void => void (missing.length < NAMES_KEPT && missing.push(name))
  for (let i = 0; i < table.packs.length; i += 1) {
    if (present[i] === 1) continue
    const { backup, name } = table.packs.at(i) ?? { backup: undefined, name: '' }
    miss(backup === undefined ? name : `${backup}/${name}`)
  }
  for (const name of others.keys()) miss(name)
  for (const name of await missingWal(repository, layout, table, signal)) miss(name)
  return { missing, unexpected }
}

export interface PresentObjects {
  /** 1 for each pack of the table that is there in its size. */
  readonly present: Uint8Array
  readonly unexpected: readonly string[]
  /** File list parts, source document and pack table that are not there in their size. */
  readonly others: ReadonlyMap<string, number>
}

/** Which packs and documents of a backup a repository has, by its listing. WAL is not looked at. */
export async function presentObjects(
  repository: Repository,
  layout: ClusterLayout,
  table: PackTable,
  tableBytes: number | undefined,
  signal: AbortSignal,
): Promise<PresentObjects> {
  const { packs, backupId } = table
  const present = new Uint8Array(packs.length)
  const unexpected: string[] = []
  const others = new Map([...table.fileList, table.source].map(({ name, bytes }) => [name, bytes]))
  if (tableBytes !== undefined) others.set(PACK_TABLE, tableBytes)
  for (const folder of [undefined, ...packs.parents]) {
    const base = layout.base(folder ?? backupId)
    for await (const { name, size } of repository.store.list(base, { signal })) {
      const relative = name.slice(base.length)
      const pack = packs.indexOf(folder, relative)
      if (pack >= 0 && packs.bytesOf(pack) === size) present[pack] = 1
      else if (folder !== undefined) continue
      else if (others.get(relative) === size) others.delete(relative)
      else if (unexpected.length < NAMES_KEPT) unexpected.push(relative)
    }
  }
  return { present, unexpected, others }
}
