/** The worker thread that opens every frame of a dead attempt's packs: what is adopted is proven first, since nobody vouches for it. */
import { createHash } from 'node:crypto'
import { type DataKey, UnknownDataKeyError, keyedDigest } from '@tidemark/crypto'
import { freeBuffer } from '@tidemark/kernel'
import { type PrepareThread, serveThread } from '@tidemark/kernel/threads'
import { DocumentDamagedError } from '../errors.ts'
import { PackReader } from '../packs/pack-reader.ts'

export interface AdoptionThreadData {
  /** Only packs sealed with the key in force are adopted: the record names one data key. */
  readonly dataKey: DataKey
  readonly digestKey: Uint8Array
}

export interface PackToProve {
  readonly stored: ArrayBuffer
  readonly backupId: string
  readonly ordinal: number
  readonly what: string
}

export interface ProvenPack {
  /** The buffer that was sent, given back. */
  readonly stored: ArrayBuffer
  readonly sha256: string
  readonly salt: string
  /** 20 bytes a frame: keyed digest, plaintext length (u32). */
  readonly frames: Uint8Array
}

export const FRAME_ENTRY_BYTES = 20

function prove(
  { dataKey, digestKey }: AdoptionThreadData,
  { stored, backupId, ordinal, what }: PackToProve,
): ProvenPack {
  const bytes = Buffer.from(stored)
  const keyOf = (id: string): Uint8Array => {
    if (id !== dataKey.id) throw new UnknownDataKeyError(id)
    return dataKey.bytes
  }
  const reader = new PackReader(bytes, { backupId, ordinal }, keyOf, what)
  const frames = new Uint8Array(reader.frames * FRAME_ENTRY_BYTES)
  const view = new DataView(frames.buffer)
  for (let frame = 0; frame < reader.frames; frame += 1) {
    const plaintext = reader.open(frame)
    const digest = keyedDigest(digestKey, 'frame', plaintext)
    if (!digest.equals(reader.digest(frame))) throw new DocumentDamagedError(what, `frame ${frame} has another digest`)
    frames.set(digest, frame * FRAME_ENTRY_BYTES)
    view.setUint32(frame * FRAME_ENTRY_BYTES + 16, plaintext.length)
    freeBuffer(plaintext)
  }
  const sha256 = createHash('sha256').update(bytes).digest('hex')
  return { stored, sha256, salt: bytes.toString('hex', 32, 64), frames }
}

const prepare: PrepareThread<AdoptionThreadData, PackToProve, ProvenPack> = (data) => (pack) => {
  const reply = prove(data, pack)
  return { reply, transfer: [reply.stored, reply.frames.buffer as ArrayBuffer] }
}

serveThread('adoption-thread', prepare)
