/**
 * Takes away what an earlier restore, or a server that ran on it, left in a target and this backup does not have.
 *
 * Every directory becomes root's on the way down (where this process is root): its owner may still hold descriptors to them, and could plant
 * links for us to follow. Links are never followed; none is kept but those of tablespaces, which are made anew.
 */
import { constants } from 'node:fs'
import { type FileHandle, open, opendir, rm } from 'node:fs/promises'
import { OperationalError, throwIfAborted } from '@tidemark/kernel'
import { SpooledJoin } from '../spool/spooled-join.ts'
import { TargetWriteError } from '../errors.ts'
import { type RestoreSpool, openPaths } from './spool/restore-spool.ts'
import { OF_THE_RESTORE, type TargetDirectory, ofTheTablespace } from './target-directory.ts'
import { absolutePath, pathBytes } from './target-paths.ts'

export interface Swept {
  /** Files and directories that were taken away, those in such a directory not counted. */
  readonly removed: number
}

/** @param spoolName of the spool's folder in the data directory. @throws {TargetWriteError} */
export async function sweepTarget(
  target: TargetDirectory,
  spool: RestoreSpool,
  spoolName: string,
  signal: AbortSignal,
): Promise<Swept> {
  await using join = new SpooledJoin(`${spool.folder}/sweep`)
  for await (const { path } of spool.directories()) await join.add('left', path, '')
  using paths = openPaths(spool.place)
  for (let file = 0; file < spool.files; file += 1) {
    const full = join.add('left', paths.get(file).path, '')
    if (full !== undefined) await full
  }
  const { base, tablespaces } = target.paths
  const known = new Set([...OF_THE_RESTORE, spoolName, ...Object.keys(tablespaces).map(ofTheTablespace)])
  const roots: [string, string][] = [['', base]]
  for (const [oid, path] of Object.entries(tablespaces)) roots.push([`pg_tblspc/${oid}/`, path])
  try {
    for (const [prefix, root] of roots) {
      for await (const relative of namesBelow(root, prefix, known, false, target.owner !== undefined)) {
        throwIfAborted(signal, 'the restore')
        const full = join.add('right', relative, '')
        if (full !== undefined) await full
      }
    }
    await target.refuseMounts()
    let removed = 0
    for await (const { key, left } of join.differences()) {
      if (left !== undefined) continue
      await rm(pathBytes(absolutePath(target.paths, key)), { recursive: true, force: true })
      removed += 1
    }
    return { removed }
  } catch (cause) {
    if (signal.aborted || cause instanceof OperationalError) throw cause
    throw new TargetWriteError(target.path, cause)
  }
}

/** Everything below a directory but what is `known` to be ours. @param takeOver the directory itself: a target's roots are root's already. */
async function* namesBelow(
  directory: string,
  prefix: string,
  known: ReadonlySet<string>,
  takeOver: boolean,
  asRoot: boolean,
): AsyncGenerator<string> {
  const flags = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW
  if (takeOver) {
    await using handle: FileHandle = await open(pathBytes(directory), flags)
    await handle.chown(0, 0)
    await handle.chmod(0o700)
  }
  // encoding 'latin1' gives one character per byte; the types do not know it.
  const entries = await opendir(pathBytes(directory), { encoding: 'latin1' as BufferEncoding })
  for await (const entry of entries) {
    const relative = prefix + entry.name
    if (known.has(relative)) continue
    yield relative
    if (entry.isDirectory()) yield* namesBelow(`${directory}/${entry.name}`, `${relative}/`, known, asRoot, asRoot)
  }
}
