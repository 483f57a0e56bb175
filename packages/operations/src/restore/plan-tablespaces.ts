/**
 * Where tablespaces go, and the guard that keeps a restore off directories that somebody else uses.
 *
 * A tablespace is a path, on the source's host and on this one alike. Started on the source's own host, a copy whose links still point there
 * would write into production's files; and replay of CREATE TABLESPACE takes its absolute path from WAL, where nothing can remap it, adopts
 * a directory that is there, and a later DROP deletes what is in it. So a location that exists here is refused, before anything is copied.
 */
import type { BigIntStats } from 'node:fs'
import { lstat, readdir, stat } from 'node:fs/promises'
import { dirname, isAbsolute, join, normalize } from 'node:path'
import type { SourceDocument } from '@tidemark/repository'
import { TablespaceLocationError, TablespaceMappingError } from '../errors.ts'
import { type Owner, isRootsAlone } from './target-facts.ts'
import { type Place, liesIn } from './directory-identity.ts'
import { inServersDirectory, isSameMarker } from './tablespace-claim.ts'
import { serversAbove } from './target-ground.ts'
import { TABLESPACE_FENCE, type TargetMarker, readTablespaceMarker, unfinished } from './target-marker.ts'

export interface TablespaceMapping {
  /** As the source has it. */
  readonly from: string
  /** Absolute; made where it is not there, empty where it is. */
  readonly to: string
}

/**
 * 'copied': its files are in the backup. 'replayed': it was made while the backup ran, and the server makes it again as it recovers, at the
 * same absolute path. 'in-place': a directory in pg_tblspc (allow_in_place_tablespaces), restored like any other.
 */
export type TablespaceKind = 'copied' | 'replayed' | 'in-place'

export interface PlannedTablespace {
  readonly oid: string
  /** Null where only its oid or WAL record is known. */
  readonly name: string | null
  readonly kind: TablespaceKind
  /** On the source. */
  readonly location: string | null
  /** On this host; undefined for one in place. */
  readonly target: { readonly path: string; readonly exists: boolean } | undefined
  /** Which directory that is, for the claim to find again. */
  readonly place: Place | undefined
}

interface Found {
  readonly path: string
  readonly place: Place
}

export interface TablespaceWishes {
  readonly targetDirectory: string
  readonly tablespaceMappings: readonly TablespaceMapping[]
  /** Each goes to a folder of its oid below this one. */
  readonly tablespaceRoot: string | undefined
}

export interface KnownTablespaces {
  /** Of the record: every tablespace that the backup has or may replay. */
  readonly oids: readonly string[]
  readonly source: Pick<SourceDocument, 'tablespaces'>
  /** Of tablespace_map. */
  readonly mapped: readonly { readonly oid: number; readonly location: string }[]
}

/**
 * @param marker of the restore whose directories are taken up again: its own tablespaces may be there.
 * @throws {TablespaceLocationError} a location is in the way, or nothing is known of it. @throws {TablespaceMappingError}
 */
export async function planTablespaces(
  known: KnownTablespaces,
  wishes: TablespaceWishes,
  marker: TargetMarker | undefined,
  owner: Owner | undefined,
): Promise<PlannedTablespace[]> {
  const sourced = new Map(known.source.tablespaces.map((each) => [each.oid, each]))
  const copied = new Map(known.mapped.map(({ oid, location }) => [String(oid), location]))
  const oids = new Set([...known.oids, ...sourced.keys(), ...copied.keys()])
  const located = [...oids].map((oid) => {
    const name = sourced.get(oid)?.name ?? null
    const location = copied.get(oid) ?? sourced.get(oid)?.location ?? null
    // Made after the preflight and before the server's own list: copied, and made again at its own path by WAL all the same.
    if (copied.has(oid))
      return { oid, name, location, kind: 'copied' as const, pathInWal: isReplayed(sourced.get(oid)) }
    if (location !== null && isAbsolute(location))
      return { oid, name, location, kind: 'replayed' as const, pathInWal: true }
    if (sourced.has(oid)) return { oid, name, location: null, kind: 'in-place' as const, pathInWal: false }
    throw TablespaceLocationError.unknown(oid)
  })
  refuseMeaningless(wishes, located)
  const planned: PlannedTablespace[] = []
  for (const { pathInWal, ...each } of located) {
    const { oid, location } = each
    const find = pathInWal ? replayedTarget : copiedTarget
    const found = location === null ? undefined : await find(oid, location, wishes, marker, owner)
    const target = found === undefined ? undefined : { path: found.path, exists: found.place.seen !== undefined }
    planned.push({ ...each, target, place: found?.place })
  }
  await refuseShared(planned)
  return planned
}

function isReplayed(source: SourceDocument['tablespaces'][number] | undefined): boolean {
  return source !== undefined && source.seen.includes('wal') && !source.seen.includes('before')
}

async function copiedTarget(
  oid: string,
  location: string,
  wishes: TablespaceWishes,
  marker: TargetMarker | undefined,
  owner: Owner | undefined,
): Promise<Found> {
  const mapped = wishes.tablespaceMappings.find(({ from }) => from === location)?.to
  const path = mapped ?? (wishes.tablespaceRoot === undefined ? undefined : join(wishes.tablespaceRoot, oid))
  const before = marker?.tablespaces[oid]
  if (marker !== undefined && before !== undefined) {
    if (path !== undefined && path !== before)
      throw new TablespaceMappingError(path, `tablespace ${oid} lies in ${before} since the restore that is taken up`)
    const named = before === (path ?? location)
    return { path: before, place: await mustBeOurs(oid, before, named, wishes.targetDirectory, marker, owner) }
  }
  if (path !== undefined) return { path, place: await checkTarget(path, wishes.targetDirectory) }
  if ((await look(location)) !== undefined) throw TablespaceLocationError.exists(oid, location)
  return { path: location, place: await checkTarget(location, wishes.targetDirectory) }
}

/** Its path stands in WAL: the server wants an empty directory there, and says so only when it is far into recovery. */
async function replayedTarget(
  oid: string,
  location: string,
  wishes: TablespaceWishes,
  marker: TargetMarker | undefined,
  owner: Owner | undefined,
): Promise<Found> {
  if (marker?.tablespaces[oid] === location)
    return { path: location, place: await mustBeOurs(oid, location, true, wishes.targetDirectory, marker, owner) }
  if ((await look(location)) !== undefined) throw TablespaceLocationError.replayed(oid, location)
  return { path: location, place: await checkTarget(location, wishes.targetDirectory) }
}

/** @throws {TablespaceMappingError} */
async function checkTarget(path: string, targetDirectory: string): Promise<Place> {
  if (!isAbsolute(path) || normalize(path) !== path || path.endsWith('/') || /[\n\r\0]/.test(path))
    throw new TablespaceMappingError(path, 'it is no absolute, normalised path')
  await refuseNested(path, targetDirectory)
  const found = await look(path)
  if (found === undefined) {
    const above = await stat(dirname(path), { bigint: true }).catch(() => undefined)
    if (above === undefined)
      throw new TablespaceMappingError(
        path,
        `${dirname(path)} does not exist: make it first, for the server's user to reach`,
      )
    return { seen: undefined, above }
  }
  if (found.isSymbolicLink()) throw new TablespaceMappingError(path, 'it is a symbolic link: name what it leads to')
  if (!found.isDirectory()) throw new TablespaceMappingError(path, 'it is no directory')
  const [first] = await namesIn(path)
  if (first !== undefined) throw new TablespaceMappingError(path, `it is not empty: it holds ${first}`)
  return { seen: found, above: undefined }
}

/**
 * A directory that a marker names is taken up, and what does not belong there is removed: so it carries a marker of its own. Both may be the
 * owner's own invention, so root goes only where that owner could have done the same, or where root itself was when it was killed.
 *
 * It may not be there: a restore may have been killed before it made it.
 *
 * @param named whether the operator or the backup says the path too; else the marker alone does.
 */
async function mustBeOurs(
  oid: string,
  path: string,
  named: boolean,
  targetDirectory: string,
  { state, directory: of }: TargetMarker,
  owner: Owner | undefined,
): Promise<Place> {
  const found = await look(path)
  if (found === undefined && state === 'incomplete') {
    const place = await checkTarget(path, targetDirectory)
    // Root would make a directory wherever the marker's author likes, and give it to him.
    if (named || owner === undefined || isRootsAlone(await lstat(targetDirectory, { bigint: true }))) return place
    throw new TablespaceMappingError(path, 'it is not there, and only the marker names it: name it again')
  }
  if (found?.isDirectory() !== true)
    throw new TablespaceMappingError(
      path,
      'it held a tablespace of this target and is gone, or is no directory any more',
    )
  await refuseNested(path, targetDirectory)
  const ours = isSameMarker(await readTablespaceMarker(path), {
    oid,
    directory: { path, inode: Number(found.ino) },
    of,
  })
  if (!ours && (state === 'complete' || (await namesIn(path)).length > 0))
    throw new TablespaceMappingError(
      path,
      `it has no ${TABLESPACE_FENCE} of this target: it may be somebody else's by now`,
    )
  const place = { seen: found, above: undefined }
  if (owner === undefined || found.uid === BigInt(owner.uid)) return place
  const target = await look(targetDirectory)
  if (target !== undefined && isRootsAlone(target) && isRootsAlone(found)) return place
  throw new TablespaceMappingError(path, 'it does not belong to the owner of the data directory')
}

/** Whatever links and mounts lead there. */
async function refuseNested(path: string, targetDirectory: string): Promise<void> {
  try {
    if ((await liesIn(path, targetDirectory)) || (await liesIn(targetDirectory, path)))
      throw new TablespaceMappingError(path, 'it and the data directory lie in each other')
    const above = await serversAbove(path)
    if (above !== undefined) throw inServersDirectory(path, above)
  } catch (error) {
    if (error instanceof TablespaceMappingError) throw error
    throw new TablespaceMappingError(path, `it cannot be looked at: ${String((error as NodeJS.ErrnoException).code)}`)
  }
}

/** But for what a restore has left that was killed as it wrote its marker. */
async function namesIn(path: string): Promise<string[]> {
  const names = await readdir(path).catch((error: NodeJS.ErrnoException) => {
    throw new TablespaceMappingError(path, `it cannot be listed: ${String(error.code)}`)
  })
  return names.filter((name) => name !== unfinished(TABLESPACE_FENCE))
}

async function look(path: string): Promise<BigIntStats | undefined> {
  try {
    return await lstat(path, { bigint: true })
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
    // What cannot be looked at may well be there.
    throw new TablespaceMappingError(path, `it cannot be looked at: ${String(code)}`)
  }
}

/** A mapping that fits nothing is a typing error, and its tablespace would go to where it must not. */
function refuseMeaningless(
  { tablespaceMappings }: TablespaceWishes,
  planned: readonly { readonly oid: string; readonly location: string | null; readonly pathInWal: boolean }[],
): void {
  for (const { from, to } of tablespaceMappings) {
    const meant = planned.find(({ location }) => location === from)
    if (meant === undefined) throw new TablespaceMappingError(to, `the backup has no tablespace at ${from}`)
    if (meant.pathInWal && to !== from)
      throw new TablespaceMappingError(
        to,
        `tablespace ${meant.oid} was made while the backup ran: the server makes it again at ${from}, which stands in WAL`,
      )
  }
}

async function refuseShared(planned: readonly PlannedTablespace[]): Promise<void> {
  const paths = planned.flatMap(({ target }) => (target === undefined ? [] : [target.path]))
  for (const [i, path] of paths.entries()) {
    for (const [j, other] of paths.entries())
      if (j !== i && (await liesIn(path, other)))
        throw new TablespaceMappingError(path, `another tablespace goes to ${other}`)
  }
}
