/**
 * Sealed frames: the unit of encryption in the repository.
 *
 * Each frame is authenticated alone, so a restore can check any one without its neighbours. Its place (header, index, flags) is
 * bound into the tag: whoever can rename or reorder bytes in the bucket still cannot pass one frame off as another.
 * Keys are handed in, never looked up here. Format: docs/repository-format.md, section 2.3.
 */
import { createCipheriv, createDecipheriv, createHmac, timingSafeEqual } from 'node:crypto'
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { freeBuffer } from '@tidemark/kernel'
import { SealRefusedError } from './errors.ts'
import type { StreamHeader } from './stream-header.ts'
import type { StreamKeys } from './stream-keys.ts'
import { FRAME_BYTES, FRAME_HEADER_BYTES, MAX_CIPHERTEXT_BYTES, tagBytes } from './suite.ts'

const COMPRESSED = 1
const LAST = 2
const TABLE = 4
const EMPTY = Buffer.alloc(0)

export interface FrameFlags {
  readonly last: boolean
  readonly table: boolean
}

export interface SealedFrame {
  /** To be stored one after the other. */
  readonly parts: readonly Buffer[]
  readonly bytes: number
}

export interface OpenedFrame extends FrameFlags {
  readonly plaintext: Buffer
  /** Offset of the byte after this frame. */
  readonly end: number
}

/** What a frame looks like from outside, before its tag was checked: only good for finding the next one. */
export interface FrameShape {
  readonly flags: number
  readonly plaintextBytes: number
  readonly ciphertextBytes: number
  readonly end: number
}

/** @param level zstd level 1..19, or 0 for none. */
export function sealFrame(
  stream: { header: StreamHeader; keys: StreamKeys },
  index: number,
  plaintext: Uint8Array,
  flags: FrameFlags,
  level: number,
): SealedFrame {
  if (plaintext.length > FRAME_BYTES)
    throw new RangeError(`a frame holds at most ${FRAME_BYTES} bytes, not ${plaintext.length}`)
  const compressed = level > 0 && plaintext.length > 64 ? compress(plaintext, level) : undefined
  const raw = compressed === undefined || compressed.length >= plaintext.length
  const payload = raw ? plaintext : compressed
  const { suite } = stream.header
  const padded = suite === 1 ? payload.length + 16 - (payload.length % 16) : payload.length
  const frameHeader = Buffer.alloc(FRAME_HEADER_BYTES)
  frameHeader.writeUInt8((raw ? 0 : COMPRESSED) | (flags.last ? LAST : 0) | (flags.table ? TABLE : 0), 0)
  frameHeader.writeUInt32BE(plaintext.length, 4)
  frameHeader.writeUInt32BE(padded, 8)
  const position = encodeIndex(index)
  let parts: Buffer[]
  if (suite === 1) {
    const cipher = createCipheriv('aes-256-cbc', stream.keys.encrypt, cbcIv(stream.keys, position))
    const body = cipher.update(payload)
    const end = cipher.final()
    const tag = createHmac('sha256', stream.keys.mac)
      .update(stream.header.bound)
      .update(position)
      .update(frameHeader)
      .update(body)
      .update(end)
      .digest()
    parts = [frameHeader, body, end, tag]
  } else {
    const cipher = createCipheriv('aes-256-gcm', stream.keys.encrypt, gcmNonce(position))
    cipher.setAAD(Buffer.concat([stream.header.bound, position, frameHeader]))
    const body = cipher.update(payload)
    parts = [frameHeader, body, cipher.final(), cipher.getAuthTag()]
  }
  if (compressed !== undefined) freeBuffer(compressed)
  return { parts, bytes: FRAME_HEADER_BYTES + padded + tagBytes(suite) }
}

/** @throws {SealRefusedError} truncated or frame-shape. */
export function frameShape(stored: Buffer, offset: number, header: StreamHeader, what: string): FrameShape {
  if (offset + FRAME_HEADER_BYTES > stored.length) throw new SealRefusedError('truncated', what, { offset })
  const flags = stored.readUInt8(offset)
  const plaintextBytes = stored.readUInt32BE(offset + 4)
  const ciphertextBytes = stored.readUInt32BE(offset + 8)
  const reserved = stored.readUIntBE(offset + 1, 3)
  const blocks = header.suite === 1 ? ciphertextBytes >= 16 && ciphertextBytes % 16 === 0 : true
  if (
    plaintextBytes > FRAME_BYTES ||
    ciphertextBytes > MAX_CIPHERTEXT_BYTES ||
    !blocks ||
    reserved !== 0 ||
    flags > 7
  ) {
    throw new SealRefusedError('frame-shape', what, { offset })
  }
  const end = offset + FRAME_HEADER_BYTES + ciphertextBytes + tagBytes(header.suite)
  return { flags, plaintextBytes, ciphertextBytes, end }
}

/**
 * Authenticates, decrypts and decompresses the frame at `offset`, which must be number `index` of its stream.
 *
 * @throws {SealRefusedError} truncated, frame-shape, or frame when the tag does not hold (damage, change, another
 *   place). Nothing is decrypted before the tag held.
 */
export function openFrame(
  stream: { header: StreamHeader; keys: StreamKeys },
  stored: Buffer,
  offset: number,
  index: number,
  what: string,
): OpenedFrame {
  const { header, keys } = stream
  const shape = frameShape(stored, offset, header, what)
  if (shape.end > stored.length) throw new SealRefusedError('truncated', what, { offset, index })
  const bodyStart = offset + FRAME_HEADER_BYTES
  const frameHeader = stored.subarray(offset, bodyStart)
  const body = stored.subarray(bodyStart, bodyStart + shape.ciphertextBytes)
  const tag = stored.subarray(bodyStart + shape.ciphertextBytes, shape.end)
  const position = encodeIndex(index)
  const payload =
    header.suite === 1
      ? openCbc(header, keys, position, frameHeader, body, tag, what)
      : openGcm(header, keys, position, frameHeader, body, tag)
  if (payload === undefined) throw new SealRefusedError('frame', what, { offset, index })
  const plaintext = (shape.flags & COMPRESSED) === 0 ? payload : decompress(payload, shape.plaintextBytes, what, index)
  if (plaintext !== payload) freeBuffer(payload)
  if (plaintext.length !== shape.plaintextBytes) throw new SealRefusedError('frame-shape', what, { offset, index })
  return { plaintext, end: shape.end, last: (shape.flags & LAST) !== 0, table: (shape.flags & TABLE) !== 0 }
}

function openCbc(
  header: StreamHeader,
  keys: StreamKeys,
  position: Buffer,
  frameHeader: Buffer,
  body: Buffer,
  tag: Buffer,
  what: string,
): Buffer | undefined {
  const own = createHmac('sha256', keys.mac)
    .update(header.bound)
    .update(position)
    .update(frameHeader)
    .update(body)
    .digest()
  if (!timingSafeEqual(own, tag)) return undefined
  const decipher = createDecipheriv('aes-256-cbc', keys.encrypt, cbcIv(keys, position)).setAutoPadding(false)
  // Without OpenSSL's own padding all comes out at once; put together from two parts, it would be copied, and the first part left to the collector.
  const padded = decipher.update(body)
  decipher.final()
  const padding = padded.at(-1) ?? 0
  // The tag held, so no attacker learns anything here: a writer that holds the keys padded wrongly.
  if (padding < 1 || padding > 16 || !padded.subarray(-padding).every((byte) => byte === padding))
    throw new SealRefusedError('frame-shape', what)
  return padded.subarray(0, padded.length - padding)
}

function openGcm(
  header: StreamHeader,
  keys: StreamKeys,
  position: Buffer,
  frameHeader: Buffer,
  body: Buffer,
  tag: Buffer,
): Buffer | undefined {
  const decipher = createDecipheriv('aes-256-gcm', keys.encrypt, gcmNonce(position), { authTagLength: 16 })
  decipher.setAAD(Buffer.concat([header.bound, position, frameHeader])).setAuthTag(tag)
  const plaintext = decipher.update(body)
  try {
    decipher.final()
    return plaintext
  } catch {
    return undefined
  }
}

function encodeIndex(index: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(index))
  return bytes
}

function cbcIv(keys: StreamKeys, position: Buffer): Buffer {
  const block = Buffer.alloc(16)
  position.copy(block, 8)
  return createCipheriv('aes-256-ecb', keys.iv, EMPTY).setAutoPadding(false).update(block)
}

function gcmNonce(position: Buffer): Buffer {
  const nonce = Buffer.alloc(12)
  position.copy(nonce, 4)
  return nonce
}

function compress(plaintext: Uint8Array, level: number): Buffer {
  return zstdCompressSync(plaintext, {
    chunkSize: FRAME_BYTES + 8192,
    params: { [constants.ZSTD_c_compressionLevel]: level },
  })
}

function decompress(payload: Buffer, plaintextBytes: number, what: string, index: number): Buffer {
  try {
    // One byte to spare: once a chunk is full, zlib makes the next one, used or not.
    const chunkSize = Math.max(plaintextBytes + 1, 64)
    const result = zstdDecompressSync(payload, { maxOutputLength: plaintextBytes, chunkSize, info: true })
    const { buffer, engine } = result as unknown as { buffer: Buffer; engine: { bytesWritten: number } }
    if (engine.bytesWritten !== payload.length) throw new RangeError('bytes after the end of the zstd frame')
    return buffer
  } catch (cause) {
    throw new SealRefusedError('frame-shape', what, { index }, cause)
  }
}
