/**
 * The worker thread that compresses, digests and encrypts.
 *
 * It owns one open pack at a time, in a buffer that the main thread lends to it. Frames arrive as transferred buffers and
 * go back as soon as they are sealed, so nothing is allocated per frame but what zlib and the cipher return.
 * Messages are handled in order; frames that come while no pack is lent wait here (their number is bounded by the writer).
 */
import { createHash, createSecretKey } from 'node:crypto'
import { freeBuffer } from '@tidemark/kernel'
import { THREAD_STOP } from '@tidemark/kernel/threads'
import { parentPort, workerData } from 'node:worker_threads'
import { AdoptedFrames } from './adopted-frames.ts'
import { MAX_FRAMES, TABLE_ENTRY_BYTES, TRAILER_BYTES } from './pack-layout.ts'
import { type DataKey, FRAME_BYTES, StreamSealer, type SuiteName, keyedDigest, sealBytes } from '@tidemark/crypto'

export interface SealingThreadData {
  readonly suite: SuiteName
  readonly dataKey: DataKey
  readonly digestKey: Uint8Array
  readonly compressionLevel: number
  readonly backupId: string
  /** A pack is closed once it has this many bytes. */
  readonly packBytes: number
}

export interface WalIdentity {
  readonly systemId: bigint
  readonly timeline: number
  readonly segment: bigint
}

export type ToSealingThread =
  | { readonly type: 'frame'; readonly ticket: number; readonly buffer: ArrayBuffer; readonly length: number }
  | { readonly type: 'lend-pack'; readonly ordinal: number; readonly buffer: ArrayBuffer }
  /** Before the first frame: frames that a dead attempt has stored need not be sealed again. */
  | { readonly type: 'adopt'; readonly frames: SharedArrayBuffer }
  /** Close the open pack, if any, and answer 'closed'. Only sent when no frame is on its way. */
  | { readonly type: 'close' }
  | { readonly type: 'wal'; readonly ticket: number; readonly buffer: ArrayBuffer; readonly identity: WalIdentity }

export interface SealedPack {
  readonly ordinal: number
  readonly buffer: ArrayBuffer
  readonly bytes: number
  readonly sha256: string
  readonly salt: string
}

export type FromSealingThread =
  | { readonly type: 'want-pack' }
  | {
      readonly type: 'sealed'
      readonly ticket: number
      readonly buffer: ArrayBuffer
      readonly ordinal: number
      readonly frame: number
    }
  /** The frame lies in an adopted pack already: `pack` is its number among the adopted ones. */
  | {
      readonly type: 'known'
      readonly ticket: number
      readonly buffer: ArrayBuffer
      readonly pack: number
      readonly frame: number
    }
  | { readonly type: 'pack'; readonly pack: SealedPack }
  | { readonly type: 'closed' }
  | {
      readonly type: 'wal-sealed'
      readonly ticket: number
      readonly sealed: Uint8Array
      readonly digest: string
      readonly sha256: string
    }

/** What a lent pack buffer must hold: the threshold, one more frame, the frame table, the trailer. */
export function packBufferBytes(packBytes: number): number {
  return packBytes + FRAME_BYTES + 256 + MAX_FRAMES * TABLE_ENTRY_BYTES + 128
}

class OpenPack {
  readonly #ordinal: number
  readonly #buffer: ArrayBuffer
  readonly #bytes: Buffer
  readonly #sealer: StreamSealer
  readonly #hash = createHash('sha256')
  readonly #table = Buffer.alloc(MAX_FRAMES * TABLE_ENTRY_BYTES)
  readonly #data: SealingThreadData
  #used = 0

  constructor(data: SealingThreadData, ordinal: number, buffer: ArrayBuffer) {
    this.#data = data
    this.#ordinal = ordinal
    this.#buffer = buffer
    this.#bytes = Buffer.from(buffer)
    this.#sealer = new StreamSealer({
      suite: data.suite,
      dataKey: data.dataKey,
      identity: { kind: 'pack', backupId: data.backupId, ordinal },
      compressionLevel: data.compressionLevel,
    })
    this.#append(this.#sealer.header.bytes)
  }

  get ordinal(): number {
    return this.#ordinal
  }

  get full(): boolean {
    return this.#used >= this.#data.packBytes || this.#sealer.frames >= MAX_FRAMES
  }

  /** @returns the frame's index in this pack. */
  add(plaintext: Uint8Array, digest: Buffer): number {
    const index = this.#sealer.frames
    const entry = this.#table.subarray(index * TABLE_ENTRY_BYTES, (index + 1) * TABLE_ENTRY_BYTES)
    entry.writeUInt32BE(this.#used, 0)
    entry.writeUInt32BE(plaintext.length, 4)
    digest.copy(entry, 8)
    for (const part of this.#sealer.seal(plaintext).parts) this.#append(part)
    return index
  }

  close(): SealedPack {
    const frames = this.#sealer.frames
    const tableOffset = this.#used
    const table = this.#table.subarray(0, frames * TABLE_ENTRY_BYTES)
    for (const part of this.#sealer.seal(table, { last: true, table: true }).parts) this.#append(part)
    const trailer = Buffer.alloc(TRAILER_BYTES)
    trailer.writeUInt32BE(tableOffset, 0)
    trailer.writeUInt32BE(frames, 4)
    this.#append(trailer)
    const salt = this.#bytes.toString('hex', 32, 64)
    return { ordinal: this.#ordinal, buffer: this.#buffer, bytes: this.#used, sha256: this.#hash.digest('hex'), salt }
  }

  #append(part: Buffer): void {
    part.copy(this.#bytes, this.#used)
    this.#hash.update(part)
    this.#used += part.length
    freeBuffer(part)
  }
}

/** The thread's life: one instance, started below when this file runs as a worker. */
function runSealingThread(port: NonNullable<typeof parentPort>, data: SealingThreadData): void {
  const digestKey = createSecretKey(data.digestKey)
  const waiting: { ticket: number; buffer: ArrayBuffer; length: number; digest?: Buffer }[] = []
  let adopted: AdoptedFrames | undefined
  let pack: OpenPack | undefined
  let asked = false

  const send = (message: FromSealingThread, transfer: ArrayBuffer[] = []): void => port.postMessage(message, transfer)
  const closePack = (): void => {
    if (pack === undefined) return
    const sealed = pack.close()
    pack = undefined
    send({ type: 'pack', pack: sealed }, [sealed.buffer])
  }
  const work = (): void => {
    for (;;) {
      const [next] = waiting
      if (next === undefined) return
      const plaintext = new Uint8Array(next.buffer, 0, next.length)
      const digest = (next.digest ??= keyedDigest(digestKey, 'frame', plaintext))
      const known = adopted?.find(digest, next.length)
      if (known !== undefined) {
        waiting.shift()
        send({ type: 'known', ticket: next.ticket, buffer: next.buffer, ...known }, [next.buffer])
        continue
      }
      if (pack === undefined) {
        if (!asked) send({ type: 'want-pack' })
        asked = true
        return
      }
      waiting.shift()
      const frame = pack.add(plaintext, digest)
      send({ type: 'sealed', ticket: next.ticket, buffer: next.buffer, ordinal: pack.ordinal, frame }, [next.buffer])
      if (pack.full) closePack()
    }
  }

  port.on('message', (message: ToSealingThread | typeof THREAD_STOP) => {
    if (message === THREAD_STOP) return port.close()
    switch (message.type) {
      case 'frame':
        waiting.push(message)
        return work()
      case 'lend-pack':
        pack = new OpenPack(data, message.ordinal, message.buffer)
        asked = false
        return work()
      case 'adopt':
        adopted = new AdoptedFrames(message.frames)
        return
      case 'close':
        closePack()
        return send({ type: 'closed' })
      case 'wal':
        return sealWal(message)
      default:
        return message satisfies never
    }
  })

  function sealWal({ ticket, buffer, identity }: Extract<ToSealingThread, { type: 'wal' }>): void {
    const segment = new Uint8Array(buffer)
    const digest = keyedDigest(digestKey, 'wal', segment).toString('hex')
    const sealed = sealBytes(segment, {
      suite: data.suite,
      dataKey: data.dataKey,
      compressionLevel: data.compressionLevel,
      identity: { kind: 'wal', ...identity, from: 0, to: segment.length, segmentBytes: segment.length, digest },
    })
    freeBuffer(segment)
    const sha256 = createHash('sha256').update(sealed).digest('hex')
    send({ type: 'wal-sealed', ticket, sealed, digest, sha256 }, [sealed.buffer as ArrayBuffer])
  }
}

if (parentPort !== null && (workerData as { tidemark?: string } | null)?.tidemark === 'sealing-thread') {
  runSealingThread(parentPort, (workerData as { data: SealingThreadData }).data)
}
