/**
 * A tablespace's directory is a restore's own once it carries the restore's marker: which directory it is, and of which data directory.
 *
 * Between plan and claim anybody may have put something there, or have put another directory in its place; so it is looked at again once it
 * is held. Whatever does not carry the marker is neither written to nor taken away.
 */
import { readdir, rm } from 'node:fs/promises'
import { OperationalError } from '@tidemark/kernel'
import { TablespaceMappingError, TargetWriteError } from '../errors.ts'
import type { Place } from './directory-identity.ts'
import { serversAbove } from './target-ground.ts'
import type { Owner, TargetMode } from './target-facts.ts'
import {
  TABLESPACE_FENCE,
  type TablespaceMarker,
  type TargetMarker,
  placeMarker,
  readTablespaceMarker,
  unfinished,
} from './target-marker.ts'
import { TargetRoot } from './target-root.ts'

export interface TargetTablespace {
  readonly oid: string
  /** Absolute; where its files go. */
  readonly path: string
  /** As the plan found it. */
  readonly place: Place
  /** Linked from pg_tblspc; else it is an empty directory that the server will want as it recovers. */
  readonly linked: boolean
}

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
   * @throws {TablespaceMappingError} it holds something. @throws {TargetUnusableError} it is not the one that was planned. @throws {TargetInUseError}
   *   @throws {TargetWriteError}: nothing was changed.
   */
  static async take(
    tablespace: TargetTablespace,
    of: TargetMarker['directory'],
    mode: TargetMode,
    owner: Owner | undefined,
  ): Promise<ClaimedTablespace> {
    const { path, oid } = tablespace
    const above = await serversAbove(path).catch((error: NodeJS.ErrnoException) => {
      throw new TablespaceMappingError(path, `it cannot be looked at: ${String(error.code)}`)
    })
    if (above !== undefined) throw inServersDirectory(path, above)
    const root = await TargetRoot.take(path, owner, tablespace.place)
    try {
      const marker = { oid, directory: { path, inode: await root.inode() }, of }
      const names = await readdir(root.base)
      const ours = isSameMarker(await readTablespaceMarker(root.base), marker)
      const held = names.find((name) => name !== unfinished(TABLESPACE_FENCE) && (name !== TABLESPACE_FENCE || !ours))
      if (held !== undefined && (mode === 'new' || !ours))
        throw new TablespaceMappingError(path, `it is not empty: it holds ${held}, and no marker of this target`)
      if (!ours) await writeMarker(root, marker)
      return new ClaimedTablespace(tablespace, root, marker, ours ? 'ours' : 'empty')
    } catch (error) {
      await root.release().catch(() => {})
      throw error instanceof OperationalError ? error : new TargetWriteError(path, error)
    }
  }

  /** As it was when it was taken. Files that were written to it since stay, with the marker. */
  async release(): Promise<void> {
    try {
      const names = await readdir(this.root.base)
      if (this.#found === 'empty' && names.length === 1 && (await this.#isMarked()))
        await rm(`${this.root.base}/${TABLESPACE_FENCE}`)
    } finally {
      await this.root.release()
    }
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
  if (!(await placeMarker(root.base, TABLESPACE_FENCE, marker, root.owner)))
    throw new TablespaceMappingError(root.path, `it holds ${TABLESPACE_FENCE}`)
  try {
    await root.sync()
  } catch (error) {
    await rm(`${root.base}/${TABLESPACE_FENCE}`, { force: true }).catch(() => {})
    throw error
  }
}
