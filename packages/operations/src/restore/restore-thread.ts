/**
 * The thread that makes files, compares them with a backup's frames, and writes frames to where they belong.
 *
 * Everything it knows of files it reads from the spool. A pack's bytes are taken as what they say once the tag of each frame has held:
 * tags bind backup, pack, place and salt, so the pack as a whole is not hashed again.
 */
import { freeBuffer } from '@tidemark/kernel'
import { PackIndex } from '@tidemark/repository'
import { type PrepareThread, serveThread } from '@tidemark/kernel/threads'
import { type ThreadKeys, keyLookup } from '../threads/thread-keys.ts'
import { DirectWrites } from './direct-writes.ts'
import { FrameComparison } from './frame-comparison.ts'
import type { ExtentRow } from './spool/extent-rows.ts'
import { type SpoolPlace, openExtents, openPaths } from './spool/restore-spool.ts'
import { OpenFiles, makeOrAdoptFile, makeNewFile } from './target-files.ts'
import type { Owner } from './target-directory.ts'
import { type TargetPaths, absolutePath } from './target-paths.ts'

export interface RestoreThreadData extends ThreadKeys {
  readonly spool: SpoolPlace
  readonly target: TargetPaths
  readonly owner: Owner | undefined
}

export interface PackRequest {
  readonly backupId: string
  readonly ordinal: number
  /** Of the whole pack. */
  readonly bytes: number
  readonly salt: string
  /** For errors. */
  readonly what: string
  /** The pack's rows in the spool. */
  readonly rows: { readonly from: number; readonly to: number }
}

export type RestoreRequest =
  /** Files from..to−1 get their size, mode and owner. */
  | { readonly type: 'layout'; readonly from: number; readonly to: number; readonly existing: boolean }
  /** Which frames are wanted, and where they are in the pack. */
  | {
      readonly type: 'survey'
      readonly pack: PackRequest
      readonly header: Uint8Array
      readonly tail: Uint8Array
      /** Leave out frames that the target has already. */
      readonly compare: boolean
    }
  | {
      readonly type: 'write'
      readonly pack: PackRequest
      /** Comes back in the reply. */
      readonly buffer: ArrayBuffer
      /** Used bytes of the buffer. */
      readonly length: number
      /** The buffer holds a part of the pack; else all of it. */
      readonly part?: {
        readonly header: Uint8Array
        readonly tail: Uint8Array
        readonly offset: number
        /** Sorted. */
        readonly frames: Float64Array
      }
    }

export interface Survey {
  /** Three numbers a frame: its number, where it begins and where it ends in the pack; sorted. */
  readonly wanted: Float64Array
  /** Plaintext bytes that the target has already. */
  readonly sameBytes: number
}

export type RestoreReply = Survey | { readonly bytes: number; readonly buffer: ArrayBuffer } | undefined

const prepare: PrepareThread<RestoreThreadData, RestoreRequest, RestoreReply> = (data) => {
  const keyOf = keyLookup(data)
  const paths = openPaths(data.spool)
  const extents = openExtents(data.spool)
  const pathOf = (file: number): string => absolutePath(data.target, paths.get(file).path)
  const direct = new DirectWrites()
  const comparison = new FrameComparison(data.digestKey)
  const indexOf = (pack: PackRequest, header: Buffer, tail: Buffer): PackIndex =>
    new PackIndex(header, tail, pack, keyOf, pack.what)

  function layOut(from: number, to: number, existing: boolean): void {
    const make = existing ? makeOrAdoptFile : makeNewFile
    for (let file = from; file < to; file += 1) {
      const entry = paths.get(file)
      make(absolutePath(data.target, entry.path), entry, data.owner)
    }
  }

  function survey(request: Extract<RestoreRequest, { type: 'survey' }>): Survey {
    const { pack, compare } = request
    const index = indexOf(pack, asBuffer(request.header), asBuffer(request.tail))
    using files = new OpenFiles(pathOf, direct)
    const wanted: number[] = []
    let sameBytes = 0
    const decide = (frame: number, rows: readonly ExtentRow[]): void => {
      const bytes = rows.reduce((sum, { length }) => sum + length, 0)
      if (bytes === 0) return
      const same =
        compare &&
        comparison.isSame(rows, index.plaintextBytes(frame), index.digest(frame), (file) => files.forReading(file))
      if (same) sameBytes += bytes
      else wanted.push(frame, index.offset(frame), index.offset(frame + 1))
    }
    let held: ExtentRow[] = []
    for (const row of extents.read(pack.rows.from, pack.rows.to)) {
      if (held.length > 0 && held[0]?.frame !== row.frame) {
        decide(held[0]?.frame ?? 0, held)
        held = []
      }
      held.push({ ...row })
    }
    if (held.length > 0) decide(held[0]?.frame ?? 0, held)
    return { wanted: Float64Array.from(wanted), sameBytes }
  }

  function write({ pack, buffer, length, part }: Extract<RestoreRequest, { type: 'write' }>): number {
    const piece = Buffer.from(buffer, 0, length)
    const index =
      part === undefined ? indexOf(pack, piece, piece) : indexOf(pack, asBuffer(part.header), asBuffer(part.tail))
    using files = new OpenFiles(pathOf, direct)
    let next = 0
    let frame = -1
    let plaintext: Buffer = Buffer.alloc(0)
    let bytes = 0
    try {
      for (const row of extents.read(pack.rows.from, pack.rows.to, part?.frames[0] ?? 0)) {
        if (row.length === 0) continue
        if (part !== undefined) {
          while ((part.frames[next] ?? Infinity) < row.frame) next += 1
          if (next >= part.frames.length) break
          if (part.frames[next] !== row.frame) continue
        }
        if (row.frame !== frame) {
          freeBuffer(plaintext)
          plaintext = index.open(row.frame, piece, part?.offset ?? 0)
          frame = row.frame
        }
        if (row.frameOffset + row.length > plaintext.length)
          throw new RangeError(`${pack.what}: frame ${frame} is shorter than the file list says`)
        files.write(row.file, plaintext.subarray(row.frameOffset, row.frameOffset + row.length), row.fileOffset)
        bytes += row.length
      }
      return bytes
    } finally {
      freeBuffer(plaintext)
    }
  }

  return (request) => {
    switch (request.type) {
      case 'layout':
        layOut(request.from, request.to, request.existing)
        return { reply: undefined }
      case 'survey':
        return { reply: survey(request) }
      case 'write': {
        const bytes = write(request)
        return { reply: { bytes, buffer: request.buffer }, transfer: [request.buffer] }
      }
      default:
        return request satisfies never
    }
  }
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

serveThread('restore-thread', prepare)
