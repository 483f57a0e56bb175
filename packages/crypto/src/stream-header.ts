/**
 * The header of a sealed stream, and what identifies a stream.
 *
 * The identity says which place in the repository the bytes belong to, without naming a repository,
 * prefix or display name: copying to another bucket needs no key. Format: docs/repository-format.md, section 2.1.
 */
import { createHmac, timingSafeEqual } from 'node:crypto'
import { SealRefusedError } from './errors.ts'
import { type StreamKeys, deriveStreamKeys } from './stream-keys.ts'
import { FORMAT_VERSION, HEADER_BYTES, type SuiteNumber } from './suite.ts'

const MAGIC = Buffer.from('TIDEMARK', 'ascii')
const BOUND_BYTES = 128
const IDENTITY_OFFSET = 64
const IDENTITY_BYTES = 64

export type StreamIdentity =
  | { readonly kind: 'pack' | 'file-list'; readonly backupId: string; readonly ordinal: number }
  | {
      readonly kind: 'wal'
      readonly systemId: bigint
      readonly timeline: number
      readonly segment: bigint
      readonly from: number
      readonly to: number
      readonly segmentBytes: number
      /** 32 hex digits. */
      readonly digest: string
    }
  /** 32 hex digits. */
  | { readonly kind: 'other'; readonly streamId: string }

const KINDS = { pack: 1, 'file-list': 2, wal: 3, other: 4 } as const

export interface StreamHeader {
  readonly suite: SuiteNumber
  readonly dataKeyId: string
  readonly kind: number
  /** All 160 bytes, tag included. */
  readonly bytes: Buffer
  /** The 128 bytes that every frame's tag covers. */
  readonly bound: Buffer
}

export function encodeIdentity(identity: StreamIdentity): Buffer {
  const bytes = Buffer.alloc(IDENTITY_BYTES)
  switch (identity.kind) {
    case 'pack':
    case 'file-list':
      bytes.write(identity.backupId, 0, 8, 'hex')
      bytes.writeUInt32BE(identity.ordinal, 8)
      return bytes
    case 'wal':
      bytes.writeBigUInt64BE(identity.systemId, 0)
      bytes.writeUInt32BE(identity.timeline, 8)
      bytes.writeBigUInt64BE(identity.segment, 12)
      bytes.writeUInt32BE(identity.from, 20)
      bytes.writeUInt32BE(identity.to, 24)
      bytes.writeUInt32BE(identity.segmentBytes, 28)
      bytes.write(identity.digest, 32, 16, 'hex')
      return bytes
    case 'other':
      bytes.write(identity.streamId, 0, 16, 'hex')
      return bytes
    default:
      return identity satisfies never
  }
}

/** A header under the stream's own keys. `salt` must never have been used before. */
export function encodeStreamHeader(
  suite: SuiteNumber,
  identity: StreamIdentity,
  dataKeyId: string,
  dataKey: Uint8Array,
  salt: Buffer,
): { header: StreamHeader; keys: StreamKeys } {
  const bytes = Buffer.alloc(HEADER_BYTES)
  MAGIC.copy(bytes, 0)
  bytes.writeUInt16BE(FORMAT_VERSION, 8)
  bytes.writeUInt8(suite, 10)
  bytes.writeUInt8(KINDS[identity.kind], 11)
  bytes.write(dataKeyId, 16, 16, 'hex')
  salt.copy(bytes, 32)
  encodeIdentity(identity).copy(bytes, IDENTITY_OFFSET)
  const keys = deriveStreamKeys(dataKey, salt, suite)
  const bound = bytes.subarray(0, BOUND_BYTES)
  createHmac('sha256', keys.header).update(bound).digest().copy(bytes, BOUND_BYTES)
  return { header: { suite, dataKeyId, kind: KINDS[identity.kind], bytes, bound }, keys }
}

/**
 * Reads and authenticates a header.
 *
 * @param keyOf gives the data key of an id, or throws UnknownDataKeyError.
 * @param expected what the reader asked for; undefined accepts any identity (for `unseal` of a lone file).
 * @throws {SealRefusedError} not-sealed, version, truncated, header or identity.
 */
export function openStreamHeader(
  stored: Buffer,
  keyOf: (dataKeyId: string) => Uint8Array,
  expected: StreamIdentity | undefined,
  what: string,
): { header: StreamHeader; keys: StreamKeys } {
  const begins = Math.min(stored.length, MAGIC.length)
  if (!stored.subarray(0, begins).equals(MAGIC.subarray(0, begins))) throw new SealRefusedError('not-sealed', what)
  if (stored.length < HEADER_BYTES) throw new SealRefusedError('truncated', what, { bytes: stored.length })
  const version = stored.readUInt16BE(8)
  const suite = stored.readUInt8(10)
  if (version !== FORMAT_VERSION) throw new SealRefusedError('version', what, { version, readable: [FORMAT_VERSION] })
  if (suite !== 1 && suite !== 2) throw new SealRefusedError('version', what, { suite, readable: [1, 2] })
  const reserved = stored.readUInt32BE(12)
  if (reserved !== 0) throw new SealRefusedError('version', what, { reserved, readable: [FORMAT_VERSION] })
  const bytes = Buffer.from(stored.subarray(0, HEADER_BYTES))
  const bound = bytes.subarray(0, BOUND_BYTES)
  const dataKeyId = bytes.toString('hex', 16, 32)
  const keys = deriveStreamKeys(keyOf(dataKeyId), bytes.subarray(32, 64), suite)
  const tag = createHmac('sha256', keys.header).update(bound).digest()
  if (!timingSafeEqual(tag, bytes.subarray(BOUND_BYTES))) throw new SealRefusedError('header', what, { dataKeyId })
  const kind = bytes.readUInt8(11)
  if (expected !== undefined) {
    const same =
      kind === KINDS[expected.kind] && encodeIdentity(expected).equals(bytes.subarray(IDENTITY_OFFSET, BOUND_BYTES))
    if (!same) throw new SealRefusedError('identity', what)
  }
  return { header: { suite, dataKeyId, kind, bytes, bound }, keys }
}
