import { StreamMalformedError } from './errors.ts'

/**
 * Reads the ustar archives a server sends in BASE_BACKUP, without copying file contents.
 *
 * PostgreSQL writes plain ustar (src/port/tar.c): names up to 99 bytes and no prefix field, octal
 * numbers or base-256 where they do not fit, types '0', '5' and '2', 512-byte padding, and since
 * version 15 the two zero blocks at the end. Anything else is refused: a stream that is not exactly
 * this is not a backup. tar-stream was measured and set aside (see README.md): it queues the chunks
 * it is given, and ours are overwritten when the socket is read again.
 */
export interface TarEntry {
  readonly path: string
  /** Only where the name is not UTF-8 and `path` therefore lossy. */
  readonly pathBytes?: Buffer
  readonly type: 'file' | 'directory' | 'symlink'
  readonly size: number
  readonly mode: number
  /** Seconds since 1970. */
  readonly mtime: number
  readonly linkTarget?: string
}

export interface TarHandler {
  onEntry(entry: TarEntry): void | Promise<void>
  onContent(chunk: Buffer): void | Promise<void>
  /** After the last byte of a file, also of an empty one; never for directories and links. */
  onContentEnd(): void | Promise<void>
}

const block = 512

export class TarReader {
  readonly #handler: TarHandler
  readonly #header = Buffer.alloc(block)
  #headerFill = 0
  #contentLeft = 0
  #paddingLeft = 0
  #inFile = false
  #zeroBlocks = 0

  constructor(handler: TarHandler) {
    this.#handler = handler
  }

  /** Feeds bytes; `chunk` must stay unchanged until the returned promise, if any, resolves. */
  write(chunk: Buffer): void | Promise<void> {
    let at = 0
    while (at < chunk.length) {
      const wait = this.#step(chunk, at)
      at += this.#taken
      if (wait !== undefined) {
        const rest = chunk.subarray(at)
        return wait.then(() => this.write(rest))
      }
    }
    if (this.#inFile && this.#contentLeft === 0) return this.#endFile()
    return undefined
  }

  /** @throws {StreamMalformedError} when the archive is cut short. */
  end(): void {
    if (this.#zeroBlocks !== 2 || this.#headerFill !== 0)
      throw new StreamMalformedError('a tar archive without its end')
  }

  #taken = 0

  #step(chunk: Buffer, at: number): void | Promise<void> {
    this.#taken = 0
    const left = chunk.length - at
    if (this.#inFile) {
      if (this.#contentLeft === 0) return this.#endFile()
      const take = Math.min(left, this.#contentLeft)
      this.#contentLeft -= take
      this.#taken = take
      return this.#handler.onContent(take === chunk.length ? chunk : chunk.subarray(at, at + take))
    }
    if (this.#paddingLeft > 0) {
      this.#taken = Math.min(left, this.#paddingLeft)
      this.#paddingLeft -= this.#taken
      return undefined
    }
    this.#taken = Math.min(left, block - this.#headerFill)
    chunk.copy(this.#header, this.#headerFill, at, at + this.#taken)
    this.#headerFill += this.#taken
    if (this.#headerFill < block) return undefined
    this.#headerFill = 0
    return this.#takeHeader()
  }

  #endFile(): void | Promise<void> {
    this.#inFile = false
    return this.#handler.onContentEnd()
  }

  #takeHeader(): void | Promise<void> {
    if (this.#header[0] === 0 && this.#header.every((byte) => byte === 0)) {
      this.#zeroBlocks += 1
      if (this.#zeroBlocks > 2) throw new StreamMalformedError('bytes after the end of a tar archive')
      return undefined
    }
    if (this.#zeroBlocks > 0) throw new StreamMalformedError('an entry after the end of a tar archive')
    const entry = parseTarHeader(this.#header)
    this.#inFile = entry.type === 'file'
    this.#contentLeft = entry.size
    this.#paddingLeft = (block - (entry.size % block)) % block
    return this.#handler.onEntry(entry)
  }
}

const entryTypes = new Map([
  ['0', 'file'],
  ['5', 'directory'],
  ['2', 'symlink'],
] as const)

/** @throws {StreamMalformedError} for a bad checksum or anything PostgreSQL never writes. */
export function parseTarHeader(header: Buffer): TarEntry {
  let sum = 0
  // The checksum counts its own field as eight spaces.
  for (let at = 0; at < block; at += 1) sum += at >= 148 && at < 156 ? 32 : (header[at] ?? 0)
  if (sum !== number(header, 148, 8)) throw new StreamMalformedError('a tar header with a wrong checksum')
  const type = entryTypes.get(String.fromCharCode(header[156] ?? 0) as '0')
  if (type === undefined) throw new StreamMalformedError('a tar entry of unknown type', { type: header[156] })
  const nameBytes = field(header, 0, 100)
  const path = trimSlashes(nameBytes.toString('utf8'))
  if (path === '' || path.startsWith('/') || path.split('/').includes('..')) {
    throw new StreamMalformedError('a tar entry outside of the data directory', { path })
  }
  const size = number(header, 124, 12)
  if (type !== 'file' && size !== 0) throw new StreamMalformedError('a directory or link with contents', { path })
  return {
    path,
    ...(Buffer.from(nameBytes.toString('utf8')).equals(nameBytes)
      ? {}
      : { pathBytes: Buffer.from(trimSlashes(nameBytes.toString('latin1')), 'latin1') }),
    type,
    size,
    mode: number(header, 100, 8) & 0o7777,
    mtime: number(header, 136, 12),
    ...(type === 'symlink' ? { linkTarget: field(header, 157, 100).toString('utf8') } : {}),
  }
}

function trimSlashes(path: string): string {
  return path.replace(/^\.\//, '').replace(/\/+$/, '')
}

function field(header: Buffer, at: number, length: number): Buffer {
  const bytes = header.subarray(at, at + length)
  const end = bytes.indexOf(0)
  return end === -1 ? bytes : bytes.subarray(0, end)
}

/** print_tar_number: octal text, or a first byte of 0x80 and the value in base 256. */
function number(header: Buffer, at: number, length: number): number {
  if (header[at] === 0x80) {
    let value = 0
    for (let index = at + 1; index < at + length; index += 1) value = value * 256 + (header[index] ?? 0)
    if (!Number.isSafeInteger(value)) throw new StreamMalformedError('a number in a tar header is too large')
    return value
  }
  const text = field(header, at, length).toString('latin1').trim()
  if (!/^[0-7]+$/.test(text)) throw new StreamMalformedError('a tar header with a bad number', { text })
  return Number.parseInt(text, 8)
}
