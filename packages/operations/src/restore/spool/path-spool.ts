/**
 * Names of files by number, on disk: however many there are, a window of them is in memory.
 *
 * `paths` has the entries (mode, flags, length of the path, size, path), `paths.index` where each begins. Little-endian: nobody else reads it.
 */
import { closeSync, openSync, readSync } from 'node:fs'
import type { FileEntry } from '@tidemark/repository'
import { SpoolFile } from '../../spool/spool-file.ts'

const HEAD_BYTES = 14
const HAS_HOLES = 1
const WINDOW_FILES = 256

export interface SpooledFile {
  /** Relative, one character per byte. */
  readonly path: string
  /** Permission bits. */
  readonly mode: number
  readonly size: number
  /** Its extents leave something out, which reads as zeros. */
  readonly hasHoles: boolean
}

const indexPath = (path: string): string => `${path}.index`

export class PathSpool implements AsyncDisposable {
  readonly #entries: SpoolFile
  readonly #index: SpoolFile
  readonly #place = Buffer.alloc(8)
  /** One for all: millions of small buffers would pile up outside of V8's heap. */
  readonly #entry = Buffer.allocUnsafeSlow(HEAD_BYTES + 0xffff)
  #files = 0

  private constructor(entries: SpoolFile, index: SpoolFile) {
    this.#entries = entries
    this.#index = index
  }

  static async create(path: string): Promise<PathSpool> {
    await using stack = new AsyncDisposableStack()
    const entries = stack.use(await SpoolFile.create(path))
    const index = await SpoolFile.create(indexPath(path))
    stack.move()
    return new PathSpool(entries, index)
  }

  get files(): number {
    return this.#files
  }

  /** Bytes on disk. */
  get bytes(): number {
    return this.#entries.length + this.#index.length
  }

  /** Its number is the count of those before it. A promise where something is to be written first: wait for it before the next call. */
  add(path: string, { mode, size, extents }: FileEntry): Promise<void> | undefined {
    let covered = 0
    for (const { length } of extents) covered += length
    const entry = this.#entry
    entry.writeUInt16LE(mode, 0)
    entry.writeUInt16LE(covered < size ? HAS_HOLES : 0, 2)
    entry.writeUInt16LE(path.length, 4)
    entry.writeDoubleLE(size, 6)
    entry.write(path, HEAD_BYTES, 'latin1')
    this.#files += 1
    const indexed = this.#indexEnd()
    const added = this.#entries.append(entry.subarray(0, HEAD_BYTES + path.length))
    return indexed === undefined && added === undefined ? undefined : bothOf(indexed, added)
  }

  /** After this it can be read; nothing more may be added. */
  async finish(): Promise<void> {
    await this.#indexEnd()
    await this.#entries.flush()
    await this.#index.flush()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#entries[Symbol.asyncDispose]()
    await this.#index[Symbol.asyncDispose]()
  }

  #indexEnd(): Promise<void> | undefined {
    this.#place.writeDoubleLE(this.#entries.length, 0)
    return this.#index.append(this.#place)
  }
}

async function bothOf(one: Promise<void> | undefined, other: Promise<void> | undefined): Promise<void> {
  await one
  await other
}

/** Reads a finished PathSpool. It blocks for a read of some kilobytes, which come from the page cache. */
export class SpooledPaths implements Disposable {
  readonly #entries: number
  readonly #index: number
  readonly #files: number
  readonly #offsets = new Float64Array(WINDOW_FILES + 1)
  #window = Buffer.alloc(0)
  #from = 0
  #count = 0

  constructor(path: string, files: number) {
    this.#entries = openSync(path, 'r')
    this.#index = openSync(indexPath(path), 'r')
    this.#files = files
  }

  get(file: number): SpooledFile {
    if (file < this.#from || file >= this.#from + this.#count) this.#load(file)
    const start = (this.#offsets[file - this.#from] ?? 0) - (this.#offsets[0] ?? 0)
    const window = this.#window
    const pathAt = start + HEAD_BYTES
    return {
      mode: window.readUInt16LE(start),
      hasHoles: (window.readUInt16LE(start + 2) & HAS_HOLES) !== 0,
      size: window.readDoubleLE(start + 6),
      path: window.toString('latin1', pathAt, pathAt + window.readUInt16LE(start + 4)),
    }
  }

  [Symbol.dispose](): void {
    closeSync(this.#entries)
    closeSync(this.#index)
  }

  #load(file: number): void {
    if (file >= this.#files) throw new RangeError(`file ${file} of ${this.#files}`)
    this.#from = file
    this.#count = Math.min(WINDOW_FILES, this.#files - file)
    const offsets = Buffer.from(this.#offsets.buffer, 0, (this.#count + 1) * 8)
    readWhole(this.#index, offsets, file * 8)
    const [first = 0] = this.#offsets
    const bytes = (this.#offsets[this.#count] ?? 0) - first
    if (this.#window.length < bytes) this.#window = Buffer.allocUnsafeSlow(bytes)
    readWhole(this.#entries, this.#window.subarray(0, bytes), first)
  }
}

function readWhole(descriptor: number, into: Buffer, offset: number): void {
  let filled = 0
  while (filled < into.length) {
    const got = readSync(descriptor, into, filled, into.length - filled, offset + filled)
    if (got === 0) throw new Error('the spool of paths is cut short')
    filled += got
  }
}
