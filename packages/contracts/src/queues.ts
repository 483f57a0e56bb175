/**
 * Queue names and operation ids.
 *
 * A kind's shared queue bears its name (`backup`); work that only one host can do, because the
 * target directory or a `file://` repository is there, goes to `<kind>.<host>`. The operation id is
 * also the BullMQ job id, which may not hold a `:`.
 */
import { z } from 'zod'

export const OPERATION_KINDS = ['backup', 'verify', 'restore', 'maintenance'] as const
export type OperationKind = (typeof OPERATION_KINDS)[number]
export const operationKindSchema = z.enum(OPERATION_KINDS)

/** `backup`, or `restore.db1` when `host` is given. */
export function queueName(kind: OperationKind, host?: string): string {
  return host === undefined ? kind : `${kind}.${host}`
}

/** The reverse of queueName; undefined for a name that is no queue of ours. */
export function parseQueueName(name: string): { kind: OperationKind; host?: string } | undefined {
  const dot = name.indexOf('.')
  const kind = operationKindSchema.safeParse(dot === -1 ? name : name.slice(0, dot))
  if (!kind.success || dot === name.length - 1) return undefined
  return dot === -1 ? { kind: kind.data } : { kind: kind.data, host: name.slice(dot + 1) }
}

/** Crockford's base 32 in lower case: no i, l, o, u. */
const ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz'
const UNIQUE_LENGTH = 26

export const operationIdSchema = z.string().regex(/^(?:backup|verify|restore|maintenance)-[0-9a-hjkmnp-tv-z]{26}$/, {
  error: 'an operation id: backup-, verify-, restore- or maintenance- and 26 characters',
})

/**
 * A new operation id: 48 bits of time, then 80 random bits (the layout of a ULID), so that ids of
 * one kind sort by creation.
 *
 * @param randomBytes at least 10 bytes from a cryptographic source.
 */
export function newOperationId(kind: OperationKind, nowMs: number, randomBytes: Uint8Array): string {
  if (randomBytes.length < 10) throw new RangeError('an operation id needs 10 random bytes')
  let bits = BigInt(nowMs) & 0xffff_ffff_ffffn
  for (const byte of randomBytes.subarray(0, 10)) bits = (bits << 8n) | BigInt(byte)
  return `${kind}-${encodeBase32(bits)}`
}

/**
 * The id that a digest always leads to: how an Idempotency-Key finds its operation again. Not
 * sortable by time.
 *
 * @param digest at least 16 bytes.
 */
export function operationIdFromDigest(kind: OperationKind, digest: Uint8Array): string {
  if (digest.length < 16) throw new RangeError('an operation id needs a digest of 16 bytes')
  let bits = 0n
  for (const byte of digest.subarray(0, 16)) bits = (bits << 8n) | BigInt(byte)
  return `${kind}-${encodeBase32(bits)}`
}

/** @throws {RangeError} when `id` is no operation id. */
export function kindOfOperation(id: string): OperationKind {
  if (!operationIdSchema.safeParse(id).success) throw new RangeError(`not an operation id: ${JSON.stringify(id)}`)
  return id.slice(0, id.indexOf('-')) as OperationKind
}

function encodeBase32(value: bigint): string {
  let text = ''
  for (let rest = value; text.length < UNIQUE_LENGTH; rest >>= 5n) text = `${ALPHABET[Number(rest & 31n)]}${text}`
  return text
}
