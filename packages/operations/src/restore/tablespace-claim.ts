/**
 * A tablespace's directory is a restore's own once it carries the restore's marker: which directory it is, and of which data directory.
 *
 * Between plan and claim anybody may have put something there, or have put another directory in its place; so it is looked at again once it
 * is held. Whatever does not carry the marker is neither written to nor taken away.
 */
import { type BigIntStats, constants } from 'node:fs'
import { lstat, open, readdir, rm } from 'node:fs/promises'
import { TablespaceMappingError } from '../errors.ts'
import { serversAbove } from './target-ground.ts'
import type { Owner, TargetMode } from './target-facts.ts'
import { TABLESPACE_FENCE, type TablespaceMarker, type TargetMarker, readTablespaceMarker } from './target-marker.ts'
import { TargetRoot } from './target-root.ts'

export interface TargetTablespace {
  readonly oid: string
  /** Absolute; where its files go. */
  readonly path: string
  readonly exists: boolean
  /** Linked from pg_tblspc; else it is an empty directory that the server will want as it recovers. */
  readonly linked: boolean
}

const NEW = constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY | constants.O_NOFOLLOW

export class ClaimedTablespace {
  readonly oid: string
  readonly linked: boolean
  readonly root: TargetRoot
  readonly #marker: TablespaceMarker
  readonly #found: 'empty' | 'ours'

  private constructor(
    tablespace: TargetTablespace,
    root: TargetRoot,
    marker: TablespaceMarker,
    found: 'empty' | 'ours',
  ) {
    this.oid = tablespace.oid
    this.linked = tablespace.linked
    this.root = root
    this.#marker = marker
    this.#found = found
  }

  /**
   * @param of the data directory.
   * @throws {TablespaceMappingError} it is not as it was planned. @throws {TargetUnusableError} @throws {TargetInUseError}: nothing was changed.
   */
  static async take(
    tablespace: TargetTablespace,
    of: TargetMarker['directory'],
    mode: TargetMode,
    owner: Owner | undefined,
  ): Promise<ClaimedTablespace> {
    const { path, oid } = tablespace
    const seen = await lookAt(path)
    if ((seen !== undefined) !== tablespace.exists)
      throw new TablespaceMappingError(path, `it has been ${seen === undefined ? 'removed' : 'made'} since the plan`)
    if (seen?.isDirectory() === false) throw new TablespaceMappingError(path, 'it is no directory')
    const above = await serversAbove(path)
    if (above !== undefined) throw inServersDirectory(path, above)
    const root = await TargetRoot.take(path, owner, seen)
    try {
      const marker = { oid, directory: { path, inode: await root.inode() }, of }
      const names = await readdir(root.base)
      const ours = isSameMarker(await readTablespaceMarker(root.base), marker)
      const held = names.find((name) => name !== TABLESPACE_FENCE || !ours)
      if (held !== undefined && (mode === 'new' || !ours))
        throw new TablespaceMappingError(path, `it is not empty: it holds ${held}, and no marker of this target`)
      if (!ours) await writeMarker(root, marker)
      return new ClaimedTablespace(tablespace, root, marker, ours ? 'ours' : 'empty')
    } catch (error) {
      await root.release()
      throw error
    }
  }

  /** As it was when it was taken. Files that were written to it since stay, with the marker. */
  async release(): Promise<void> {
    const names = await readdir(this.root.base)
    if (this.#found === 'empty' && names.length === 1 && (await this.#isMarked()))
      await rm(`${this.root.base}/${TABLESPACE_FENCE}`)
    await this.root.release()
  }

  /** Takes away what is in it, where it is still marked as this restore's. */
  async discard(): Promise<void> {
    if (await this.#isMarked()) {
      await this.root.clear(TABLESPACE_FENCE)
      await rm(`${this.root.base}/${TABLESPACE_FENCE}`)
    }
    await this.root.release()
  }

  async #isMarked(): Promise<boolean> {
    return isSameMarker(await readTablespaceMarker(this.root.base), this.#marker)
  }
}

export function isSameMarker(found: TablespaceMarker | undefined, { oid, directory, of }: TablespaceMarker): boolean {
  return (
    found !== undefined &&
    found.oid === oid &&
    found.directory.path === directory.path &&
    found.directory.inode === directory.inode &&
    found.of.path === of.path &&
    found.of.inode === of.inode
  )
}

export function inServersDirectory(path: string, above: string): TablespaceMappingError {
  return new TablespaceMappingError(
    path,
    `it lies in ${above}, which is a data directory, a tablespace or the target of a restore`,
  )
}

async function writeMarker(root: TargetRoot, marker: TablespaceMarker): Promise<void> {
  await using file = await open(`${root.base}/${TABLESPACE_FENCE}`, NEW, 0o600)
  await file.writeFile(`${JSON.stringify(marker)}\n`)
  if (root.owner !== undefined) await file.chown(root.owner.uid, root.owner.gid)
  await file.sync()
  await root.sync()
}

async function lookAt(path: string): Promise<BigIntStats | undefined> {
  return await lstat(path, { bigint: true }).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw new TablespaceMappingError(path, `it cannot be looked at: ${String(error.code)}`)
  })
}
