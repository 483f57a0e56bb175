/**
 * What a restore has to know of a backup's file list, on disk instead of in memory: names, directories, and all extents by pack.
 *
 * Its memory is the same for ten files and for ten million: the sorter's 20 MiB while it is filled, some kilobytes afterwards.
 */
import { mkdir, open, rm } from 'node:fs/promises'
import type { FileEntry } from '@tidemark/repository'
import { ExtentRows } from './extent-rows.ts'
import { ExtentSorter } from './extent-sorter.ts'
import { PathSpool, SpooledPaths } from './path-spool.ts'
import { SpoolFile } from '../../spool/spool-file.ts'

export interface SpooledDirectory {
  readonly path: string
  readonly mode: number
}

/** What a thread needs to read the spool. */
export interface SpoolPlace {
  readonly folder: string
  readonly files: number
}

const PATHS = 'paths'
const EXTENTS = 'extents'
const RUNS = 'extents.runs'
const DIRECTORIES = 'directories'

export class RestoreSpool implements AsyncDisposable {
  readonly folder: string
  readonly files: number
  readonly bytes: number
  readonly #starts: Float64Array

  private constructor(folder: string, files: number, bytes: number, starts: Float64Array) {
    this.folder = folder
    this.files = files
    this.bytes = bytes
    this.#starts = starts
  }

  /**
   * Fills a new folder from a file list; an unfinished one is removed.
   *
   * @param entries files and directories only, with the names they will have. @param packs in the pack table.
   * @param rowsHeld see ExtentSorter.
   */
  static async fill(
    folder: string,
    entries: AsyncIterable<FileEntry>,
    packs: number,
    rowsHeld?: number,
  ): Promise<RestoreSpool> {
    await mkdir(folder, { mode: 0o700 })
    try {
      await using paths = await PathSpool.create(`${folder}/${PATHS}`)
      await using directories = await SpoolFile.create(`${folder}/${DIRECTORIES}`)
      await using extents = await SpoolFile.create(`${folder}/${EXTENTS}`)
      await using sorter = await ExtentSorter.create(packs, `${folder}/${RUNS}`, rowsHeld)
      for await (const entry of entries) {
        if (entry.type === 'directory') await directories.append(encodeDirectory(entry))
        else if (entry.type === 'file') {
          const full = addExtents(sorter, paths.files, entry, packs)
          if (full !== undefined) await full
          const added = paths.add(entry.path, entry)
          if (added !== undefined) await added
        }
      }
      await directories.flush()
      await paths.finish()
      const starts = await sorter.finish(extents)
      const bytes = paths.bytes + directories.length + extents.length
      await rm(`${folder}/${RUNS}`)
      return new RestoreSpool(folder, paths.files, bytes, starts)
    } catch (error) {
      await rm(folder, { recursive: true, force: true })
      throw error
    }
  }

  get place(): SpoolPlace {
    return { folder: this.folder, files: this.files }
  }

  /** The rows of a pack in `openExtents`. */
  rowsOf(pack: number): { readonly from: number; readonly to: number } {
    return { from: this.#starts[pack] ?? 0, to: this.#starts[pack + 1] ?? 0 }
  }

  /** In the order of the file list: a folder before what lies in it. */
  async *directories(): AsyncGenerator<SpooledDirectory> {
    await using file = await open(`${this.folder}/${DIRECTORIES}`)
    let rest = Buffer.alloc(0)
    for await (const chunk of file.createReadStream({ autoClose: false }) as AsyncIterable<Buffer>) {
      rest = Buffer.concat([rest, chunk])
      let at = 0
      while (at + 4 <= rest.length && at + 4 + rest.readUInt16LE(at + 2) <= rest.length) {
        const end = at + 4 + rest.readUInt16LE(at + 2)
        yield { mode: rest.readUInt16LE(at), path: rest.toString('latin1', at + 4, end) }
        at = end
      }
      rest = rest.subarray(at)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.folder, { recursive: true, force: true })
  }
}

export function openPaths({ folder, files }: SpoolPlace): SpooledPaths {
  return new SpooledPaths(`${folder}/${PATHS}`, files)
}

export function openExtents({ folder }: SpoolPlace): ExtentRows {
  return new ExtentRows(`${folder}/${EXTENTS}`)
}

function encodeDirectory({ mode, path }: FileEntry): Buffer {
  const bytes = Buffer.allocUnsafe(4 + path.length)
  bytes.writeUInt16LE(mode, 0)
  bytes.writeUInt16LE(path.length, 2)
  bytes.write(path, 4, 'latin1')
  return bytes
}

function addExtents(sorter: ExtentSorter, file: number, entry: FileEntry, packs: number): Promise<void> | undefined {
  const { extents } = entry
  if (extents.length === 0) {
    const nothing = { fileOffset: 0, length: 0, pack: 0, frame: 0, frameOffset: 0 }
    return packs === 0 ? undefined : sorter.add(file, nothing, true)
  }
  if (extents.length === 1 && extents[0] !== undefined) return sorter.add(file, extents[0], true)
  return addMany(sorter, file, entry)
}

async function addMany(sorter: ExtentSorter, file: number, { extents }: FileEntry): Promise<void> {
  let last = 0
  for (const [i, { pack }] of extents.entries()) if (pack >= (extents[last]?.pack ?? 0)) last = i
  for (const [i, extent] of extents.entries()) {
    const full = sorter.add(file, extent, i === last)
    if (full !== undefined) await full
  }
}
