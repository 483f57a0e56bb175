/** The thread that holds packs and opens their frames on request, checking each against its keyed digest. */
import { freeBuffer } from '@tidemark/kernel'
import { keyedDigest } from '@tidemark/crypto'
import { DocumentDamagedError, PackReader } from '@tidemark/repository'
import { type PrepareThread, serveThread } from '@tidemark/kernel/threads'
import { type ThreadKeys, keyLookup } from '../threads/thread-keys.ts'

export type FrameRequest =
  | {
      readonly type: 'load'
      readonly pack: number
      readonly stored: ArrayBuffer
      readonly backupId: string
      readonly ordinal: number
      readonly what: string
    }
  | { readonly type: 'open'; readonly pack: number; readonly frame: number }
  /** Opens what was not asked for, so that every frame of the pack has been seen, and lets the pack go. */
  | { readonly type: 'drop'; readonly pack: number }

export type FrameReply = Uint8Array | undefined

interface Held {
  readonly reader: PackReader
  readonly seen: Uint8Array
  readonly stored: ArrayBuffer
  readonly what: string
}

const prepare: PrepareThread<ThreadKeys, FrameRequest, FrameReply> = (keys) => {
  const keyOf = keyLookup(keys)
  const held = new Map<number, Held>()
  const open = (pack: number, frame: number): Buffer => {
    const found = held.get(pack)
    if (found === undefined) throw new RangeError(`pack ${pack} is not loaded`)
    const plaintext = found.reader.open(frame)
    if (!keyedDigest(keys.digestKey, 'frame', plaintext).equals(found.reader.digest(frame))) {
      throw new DocumentDamagedError(found.what, `frame ${frame} does not have the digest that its table says`)
    }
    found.seen[frame] = 1
    return plaintext
  }
  return (request) => {
    switch (request.type) {
      case 'load': {
        const { backupId, ordinal, what } = request
        const reader = new PackReader(Buffer.from(request.stored), { backupId, ordinal }, keyOf, what)
        held.set(request.pack, { reader, seen: new Uint8Array(reader.frames), stored: request.stored, what })
        return { reply: undefined }
      }
      case 'open': {
        const plaintext = open(request.pack, request.frame)
        const own =
          plaintext.byteOffset === 0 && plaintext.buffer.byteLength === plaintext.byteLength
            ? plaintext
            : new Uint8Array(plaintext)
        return { reply: own, transfer: [own.buffer as ArrayBuffer] }
      }
      case 'drop': {
        const dropped = held.get(request.pack)
        if (dropped === undefined) return { reply: undefined }
        for (const [frame, done] of dropped.seen.entries()) if (done === 0) freeBuffer(open(request.pack, frame))
        held.delete(request.pack)
        freeBuffer(new Uint8Array(dropped.stored))
        return { reply: undefined }
      }
      default:
        return request satisfies never
    }
  }
}

serveThread('frame-thread', prepare)
