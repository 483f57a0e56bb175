/** Small sealed streams for tests, of frames that tests choose. */
import { createHash } from 'node:crypto'
import type { DataKey } from '../keyring.ts'
import { StreamSealer } from '../sealed-stream.ts'
import type { StreamIdentity } from '../stream-header.ts'
import { HEADER_BYTES, type SuiteName } from '../suite.ts'
import { UnknownDataKeyError } from '../errors.ts'

export const SUITE_NAMES: readonly SuiteName[] = ['aes-256-cbc-hmac-sha-256', 'aes-256-gcm']

/** Keys for tests only: anybody can make them. */
export function testKey(name: string): DataKey {
  const bytes = createHash('sha256').update(`tidemark test key ${name}`).digest()
  return { id: createHash('sha256').update(bytes).digest('hex').slice(0, 32), bytes }
}

export function keyLookup(...keys: readonly DataKey[]): (id: string) => Uint8Array {
  return (id) => {
    const key = keys.find((candidate) => candidate.id === id)
    if (key === undefined) throw new UnknownDataKeyError(id)
    return key.bytes
  }
}

export const sampleIdentity: StreamIdentity = { kind: 'pack', backupId: '00112233445566aa', ordinal: 7 }

/** A stream and where its frames lie. */
export interface SampleStream {
  readonly stored: Buffer
  readonly header: Buffer
  readonly frames: readonly Buffer[]
}

/** Seals each plaintext as a frame of its own; the last has the flag. */
export function sealFrames(
  suite: SuiteName,
  plaintexts: readonly Uint8Array[],
  dataKey: DataKey = testKey('one'),
  identity: StreamIdentity = sampleIdentity,
  compressionLevel = 0,
): SampleStream {
  const sealer = new StreamSealer({ suite, dataKey, identity, compressionLevel })
  const frames = plaintexts.map((plaintext, i) =>
    Buffer.concat(sealer.seal(plaintext, { last: i === plaintexts.length - 1, table: false }).parts),
  )
  const stored = Buffer.concat([sealer.header.bytes, ...frames])
  return { stored, header: stored.subarray(0, HEADER_BYTES), frames }
}

export async function* chunksOf(bytes: Uint8Array, sizes: Iterable<number>): AsyncGenerator<Uint8Array> {
  let at = 0
  for (const size of sizes) {
    if (at >= bytes.length) return
    yield bytes.subarray(at, at + size)
    at += size
  }
  if (at < bytes.length) yield bytes.subarray(at)
}

export async function gather(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = []
  for await (const part of source) parts.push(Buffer.from(part))
  return Buffer.concat(parts)
}
