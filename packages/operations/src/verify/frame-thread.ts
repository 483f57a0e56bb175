/** The thread that holds packs, or parts of them, and opens their frames on request, checking each against its keyed digest. */
import { freeBuffer } from '@tidemark/kernel'
import { keyedDigest } from '@tidemark/crypto'
import { DocumentDamagedError, PackIndex } from '@tidemark/repository'
import { type PrepareThread, serveThread } from '@tidemark/kernel/threads'
import { type ThreadKeys, keyLookup } from '../threads/thread-keys.ts'

export type FrameRequest =
  | {
      readonly type: 'load'
      readonly key: string
      readonly stored: ArrayBuffer
      /** Of `stored` in the pack. */
      readonly offset: number
      /** Frames from..to−1 lie in it; beyond the last one: all. */
      readonly from: number
      readonly to: number
      /** Of the pack, where `stored` is a part of it. */
      readonly ends: { readonly header: Uint8Array; readonly tail: Uint8Array } | undefined
      readonly place: ConstructorParameters<typeof PackIndex>[2]
      readonly what: string
    }
  | { readonly type: 'open'; readonly key: string; readonly frame: number }
  /** Opens what was not asked for, so that every frame has been seen, and lets it go. */
  | { readonly type: 'drop'; readonly key: string }

export type FrameReply = Uint8Array | undefined

interface Held {
  readonly index: PackIndex
  readonly from: number
  readonly to: number
  readonly offset: number
  readonly seen: Uint8Array
  readonly stored: Buffer
  readonly what: string
}

/** Node's pool for small buffers is far smaller. */
const TRANSFERRED_FROM = 256 * 1024

const prepare: PrepareThread<ThreadKeys, FrameRequest, FrameReply> = (keys) => {
  const keyOf = keyLookup(keys)
  const held = new Map<string, Held>()
  const open = (key: string, frame: number): Buffer => {
    const found = held.get(key)
    if (found === undefined) throw new RangeError(`pack part ${key} is not loaded`)
    const { index, stored, offset } = found
    const plaintext = index.open(frame, stored, offset)
    if (!keyedDigest(keys.digestKey, 'frame', plaintext).equals(index.digest(frame))) {
      throw new DocumentDamagedError(found.what, `frame ${frame} does not have the digest that its table says`)
    }
    found.seen[frame - found.from] = 1
    return plaintext
  }
  return (request) => {
    switch (request.type) {
      case 'load': {
        const { key, offset, from, ends, place, what } = request
        const stored = Buffer.from(request.stored)
        const index = new PackIndex(
          asBuffer(ends?.header ?? stored),
          asBuffer(ends?.tail ?? stored),
          place,
          keyOf,
          what,
        )
        const to = Math.min(request.to, index.frames)
        held.set(key, { index, from, to, offset, seen: new Uint8Array(to - from), stored, what })
        return { reply: undefined }
      }
      case 'open': {
        const plaintext = open(request.key, request.frame)
        // A small one may lie in a buffer that it shares.
        const own = plaintext.buffer.byteLength >= TRANSFERRED_FROM ? plaintext : new Uint8Array(plaintext)
        return { reply: own, transfer: [own.buffer as ArrayBuffer] }
      }
      case 'drop': {
        const dropped = held.get(request.key)
        if (dropped === undefined) return { reply: undefined }
        for (const [i, done] of dropped.seen.entries()) if (done === 0) freeBuffer(open(request.key, dropped.from + i))
        held.delete(request.key)
        freeBuffer(dropped.stored)
        return { reply: undefined }
      }
      default:
        return request satisfies never
    }
  }
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

serveThread('frame-thread', prepare)
