/**
 * The binary file list: which files a backup has, and where their bytes lie.
 *
 * Encoding and decoding stream: neither side holds the list. Names arrive from PostgreSQL and, on the way back, from a
 * store; the decoder refuses any that could leave the target directory. Format: docs/repository-format.md, section 4.
 */
import { FRAME_BYTES } from '@tidemark/crypto'
import { DocumentDamagedError } from '../errors.ts'

const FIXED_BYTES = 28
const EXTENT_BYTES = 24
const TYPES = { file: 1, directory: 2, symlink: 3 } as const

export interface Extent {
  readonly fileOffset: number
  readonly length: number
  /** Index into the pack table's list, from 0. */
  readonly pack: number
  readonly frame: number
  readonly frameOffset: number
}

export interface FileEntry {
  readonly type: keyof typeof TYPES
  /** One character per byte (latin1), as `linkTarget`: names need not be UTF-8. */
  readonly path: string
  /** Permission bits. */
  readonly mode: number
  /** Seconds since 1970. */
  readonly modifiedAt: number
  readonly size: number
  readonly linkTarget: string
  readonly extents: readonly Extent[]
}

/** @throws {RangeError} an entry that no reader would take: better no backup than one that cannot be restored. */
export function encodeFileEntry(entry: FileEntry): Buffer {
  if (!isSafePath(entry.path) || !isByteString(entry.path) || !isByteString(entry.linkTarget))
    throw new RangeError(`not a path inside a data directory: ${JSON.stringify(entry.path)}`)
  const path = Buffer.from(entry.path, 'latin1')
  const target = Buffer.from(entry.linkTarget, 'latin1')
  if (entry.linkTarget.includes('\0')) throw new RangeError(`a zero byte in the link target of ${entry.path}`)
  if (path.length > 0xffff || target.length > 0xffff) throw new RangeError(`path too long: ${entry.path.slice(0, 80)}…`)
  const bytes = Buffer.alloc(FIXED_BYTES + path.length + target.length + EXTENT_BYTES * entry.extents.length)
  bytes.writeUInt8(TYPES[entry.type], 0)
  bytes.writeUInt16BE(entry.mode & 0o7777, 2)
  bytes.writeBigInt64BE(BigInt(Math.trunc(entry.modifiedAt)), 4)
  bytes.writeBigUInt64BE(BigInt(entry.size), 12)
  bytes.writeUInt16BE(path.length, 20)
  bytes.writeUInt16BE(target.length, 22)
  bytes.writeUInt32BE(entry.extents.length, 24)
  path.copy(bytes, FIXED_BYTES)
  target.copy(bytes, FIXED_BYTES + path.length)
  let at = FIXED_BYTES + path.length + target.length
  for (const extent of entry.extents) {
    bytes.writeBigUInt64BE(BigInt(extent.fileOffset), at)
    bytes.writeUInt32BE(extent.length, at + 8)
    bytes.writeUInt32BE(extent.pack, at + 12)
    bytes.writeUInt32BE(extent.frame, at + 16)
    bytes.writeUInt32BE(extent.frameOffset, at + 20)
    at += EXTENT_BYTES
  }
  return bytes
}

/** The entries of one part. @throws {DocumentDamagedError} */
export function* decodeFileEntries(part: Buffer, what: string): Generator<FileEntry> {
  let at = 0
  while (at < part.length) {
    if (at + FIXED_BYTES > part.length) throw new DocumentDamagedError(what, 'an entry is cut short')
    const type = typeOf(part.readUInt8(at), what)
    const pathBytes = part.readUInt16BE(at + 20)
    const targetBytes = part.readUInt16BE(at + 22)
    const extentCount = part.readUInt32BE(at + 24)
    const end = at + FIXED_BYTES + pathBytes + targetBytes + EXTENT_BYTES * extentCount
    if (end > part.length) throw new DocumentDamagedError(what, 'an entry is cut short')
    const pathStart = at + FIXED_BYTES
    const path = part.toString('latin1', pathStart, pathStart + pathBytes)
    if (!isSafePath(path))
      throw new DocumentDamagedError(what, `${JSON.stringify(path)} is no path inside a data directory`)
    const mode = part.readUInt16BE(at + 2)
    const size = Number(part.readBigUInt64BE(at + 12))
    const fits =
      part.readUInt8(at + 1) === 0 &&
      mode <= 0o7777 &&
      Number.isSafeInteger(size) &&
      (type === 'file' || (size === 0 && extentCount === 0)) &&
      (type === 'symlink' || targetBytes === 0)
    if (!fits) throw new DocumentDamagedError(what, `the entry of ${path} has fields that a ${type} cannot have`)
    const linkTarget = part.toString('latin1', pathStart + pathBytes, pathStart + pathBytes + targetBytes)
    if (linkTarget.includes('\0'))
      throw new DocumentDamagedError(what, `the link at ${path} has a zero byte in its target`)
    yield {
      type,
      path,
      mode,
      modifiedAt: Number(part.readBigInt64BE(at + 4)),
      size,
      linkTarget,
      extents: decodeExtents(part.subarray(end - EXTENT_BYTES * extentCount, end), size, `${what}: ${path}`),
    }
    at = end
  }
}

function decodeExtents(bytes: Buffer, size: number, what: string): Extent[] {
  const extents: Extent[] = []
  let reached = 0
  for (let at = 0; at < bytes.length; at += EXTENT_BYTES) {
    const extent = {
      fileOffset: Number(bytes.readBigUInt64BE(at)),
      length: bytes.readUInt32BE(at + 8),
      pack: bytes.readUInt32BE(at + 12),
      frame: bytes.readUInt32BE(at + 16),
      frameOffset: bytes.readUInt32BE(at + 20),
    }
    if (extent.fileOffset < reached || extent.fileOffset + extent.length > size) {
      throw new DocumentDamagedError(what, 'its extents overlap or exceed its size')
    }
    if (extent.length === 0 || extent.frameOffset + extent.length > FRAME_BYTES) {
      throw new DocumentDamagedError(what, 'an extent is empty or does not lie in one frame')
    }
    reached = extent.fileOffset + extent.length
    extents.push(extent)
  }
  return extents
}

function typeOf(value: number, what: string): FileEntry['type'] {
  if (value === TYPES.file) return 'file'
  if (value === TYPES.directory) return 'directory'
  if (value === TYPES.symlink) return 'symlink'
  throw new DocumentDamagedError(what, `entry type ${value} is unknown`)
}

function isByteString(text: string): boolean {
  return Buffer.from(text, 'latin1').toString('latin1') === text
}

/** Relative, and of parts that stay below the directory they are joined to. */
export function isSafePath(path: string): boolean {
  return (
    path.length > 0 &&
    !path.includes('\0') &&
    path.split('/').every((part) => part !== '' && part !== '.' && part !== '..')
  )
}
