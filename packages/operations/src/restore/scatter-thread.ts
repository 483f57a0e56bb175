/**
 * The thread that opens a pack and writes its pieces to where they belong.
 *
 * Frames are opened in order, each once; the target files exist already and are never created here, so that a
 * path in the file list can only reach what the restore has made.
 */
import { closeSync, constants, openSync, writeSync } from 'node:fs'
import { freeBuffer } from '@tidemark/kernel'
import { PackReader } from '@tidemark/repository'
import { TargetWriteError } from '../errors.ts'
import { type PrepareThread, type ThreadKeys, serveThread } from '../threads/serve-thread.ts'
import { keyLookup } from '../threads/thread-keys.ts'

export interface ScatterRequest {
  readonly stored: ArrayBuffer
  readonly backupId: string
  readonly ordinal: number
  readonly what: string
  /** Absolute paths, one character per byte. */
  readonly files: readonly string[]
  /** Five numbers a write, sorted by frame: index into files, offset in file, frame, offset in frame, length. */
  readonly writes: Float64Array
}

export interface ScatterReply {
  readonly bytes: number
}

export const WRITE_COLUMNS = 5
const OPEN_FILES = 64

const prepare: PrepareThread<ThreadKeys, ScatterRequest, ScatterReply> = (keys) => {
  const keyOf = keyLookup(keys)
  return (request) => ({ reply: { bytes: scatter(request, keyOf) } })
}

serveThread(prepare)

function scatter(request: ScatterRequest, keyOf: (id: string) => Uint8Array): number {
  const { stored, backupId, ordinal, what, files, writes } = request
  const pack = new PackReader(Buffer.from(stored), { backupId, ordinal }, keyOf, what)
  const descriptors = new Map<number, number>()
  let frame = -1
  let plaintext: Buffer = Buffer.alloc(0)
  let bytes = 0
  try {
    for (let at = 0; at < writes.length; at += WRITE_COLUMNS) {
      const [file = 0, fileOffset = 0, wanted = 0, frameOffset = 0, length = 0] = writes.subarray(
        at,
        at + WRITE_COLUMNS,
      )
      if (wanted !== frame) {
        freeBuffer(plaintext)
        plaintext = pack.open(wanted)
        frame = wanted
      }
      if (frameOffset + length > plaintext.length)
        throw new RangeError(`${what}: frame ${frame} is shorter than the file list says`)
      const path = files[file] ?? ''
      try {
        writeFully(
          descriptorOf(descriptors, file, path),
          plaintext.subarray(frameOffset, frameOffset + length),
          fileOffset,
        )
      } catch (cause) {
        throw new TargetWriteError(path, cause)
      }
      bytes += length
    }
    return bytes
  } finally {
    for (const descriptor of descriptors.values()) closeSync(descriptor)
    freeBuffer(plaintext)
    freeBuffer(new Uint8Array(stored))
  }
}

function descriptorOf(descriptors: Map<number, number>, file: number, path: string): number {
  const open = descriptors.get(file)
  if (open !== undefined) return open
  if (descriptors.size >= OPEN_FILES) {
    for (const descriptor of descriptors.values()) closeSync(descriptor)
    descriptors.clear()
  }
  const descriptor = openSync(Buffer.from(path, 'latin1'), constants.O_WRONLY | constants.O_NOFOLLOW)
  descriptors.set(file, descriptor)
  return descriptor
}

function writeFully(descriptor: number, bytes: Buffer, offset: number): void {
  let done = 0
  while (done < bytes.length) done += writeSync(descriptor, bytes, done, bytes.length - done, offset + done)
}
