/** The calls that make, open and write files of a target. They block: for worker threads. */
import {
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  fstatSync,
  ftruncateSync,
  openSync,
  rmSync,
  writeSync,
} from 'node:fs'
import { TargetWriteError } from '../errors.ts'
import { Descriptors, type DirectWrites } from './direct-writes.ts'
import type { SpooledFile } from './spool/path-spool.ts'
import type { Owner } from './target-directory.ts'
import { pathBytes } from './target-paths.ts'

const OPEN_FILES = 64
const NEW = constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY | constants.O_NOFOLLOW
/** O_NONBLOCK: opening somebody's pipe would wait for ever. */
const PRESENT = constants.O_WRONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK

/** An empty file of the given size, where nothing may be: what no extent covers reads as zeros. @throws {TargetWriteError} */
export function makeNewFile(path: string, file: SpooledFile, owner: Owner | undefined): void {
  guarded(path, () => {
    const descriptor = openSync(pathBytes(path), NEW, 0o600)
    try {
      shape(descriptor, file, owner)
    } finally {
      closeSync(descriptor)
    }
  })
}

/**
 * A file of the given size, whatever is there: an ordinary file that nobody else links to keeps its bytes, anything else goes.
 *
 * @throws {TargetWriteError}
 */
export function makeOrAdoptFile(path: string, file: SpooledFile, owner: Owner | undefined): void {
  guarded(path, () => {
    const descriptor = openPresent(path)
    if (descriptor === undefined) {
      rmSync(pathBytes(path), { recursive: true, force: true })
      return makeNewFile(path, file, owner)
    }
    try {
      // Bytes in a hole would stay, since no extent covers them.
      if (file.hasHoles) ftruncateSync(descriptor, 0)
      shape(descriptor, file, owner)
    } finally {
      closeSync(descriptor)
    }
  })
}

function openPresent(path: string): number | undefined {
  let descriptor: number
  try {
    descriptor = openSync(pathBytes(path), PRESENT)
  } catch {
    return undefined
  }
  const found = fstatSync(descriptor)
  if (found.isFile() && found.nlink === 1) return descriptor
  closeSync(descriptor)
  return undefined
}

/** Writable until it is synced: modes that keep the owner from writing are set then. */
function shape(descriptor: number, { mode, size }: SpooledFile, owner: Owner | undefined): void {
  fchmodSync(descriptor, mode | 0o600)
  if (owner !== undefined) fchownSync(descriptor, owner.uid, owner.gid)
  ftruncateSync(descriptor, size)
}

/** Descriptors of files that exist already; they are never made here, so a pack can only reach what the restore has laid out. */
export class OpenFiles implements Disposable {
  readonly #pathOf: (file: number) => string
  readonly #direct: DirectWrites
  readonly #ordinary: Descriptors
  readonly #uncached: Descriptors

  constructor(pathOf: (file: number) => string, direct: DirectWrites) {
    this.#pathOf = pathOf
    this.#direct = direct
    const flags = constants.O_RDWR | constants.O_NOFOLLOW
    this.#ordinary = new Descriptors((file) => openSync(pathBytes(pathOf(file)), flags), OPEN_FILES)
    this.#uncached = new Descriptors((file) => direct.open(pathBytes(pathOf(file))), OPEN_FILES)
  }

  /** @throws {TargetWriteError} */
  write(file: number, bytes: Buffer, offset: number): void {
    try {
      const part = this.#direct.partOf(offset, bytes.length)
      const uncached = part === undefined ? undefined : this.#uncached.get(file)
      if (part === undefined || uncached === undefined) return this.#writeCached(file, bytes, offset)
      const from = offset + part.skip
      const written = this.#direct.write(uncached, bytes.subarray(part.skip, part.skip + part.bytes), from)
      this.#writeCached(file, bytes.subarray(0, part.skip), offset)
      this.#writeCached(file, bytes.subarray(part.skip + written), from + written)
    } catch (cause) {
      throw new TargetWriteError(this.#pathOf(file), cause)
    }
  }

  /** Undefined where it cannot be read. */
  forReading(file: number): number | undefined {
    try {
      return this.#ordinary.get(file)
    } catch {
      return undefined
    }
  }

  [Symbol.dispose](): void {
    this.#ordinary[Symbol.dispose]()
    this.#uncached[Symbol.dispose]()
  }

  #writeCached(file: number, bytes: Buffer, offset: number): void {
    if (bytes.length === 0) return
    const descriptor = this.#ordinary.get(file)
    if (descriptor === undefined) throw new RangeError(`file ${file} has no descriptor`)
    for (let done = 0; done < bytes.length;)
      done += writeSync(descriptor, bytes, done, bytes.length - done, offset + done)
  }
}

function guarded(path: string, action: () => void): void {
  try {
    action()
  } catch (cause) {
    if (cause instanceof TargetWriteError) throw cause
    throw new TargetWriteError(path, cause)
  }
}
