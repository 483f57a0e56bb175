import { type KeyObject, createHmac } from 'node:crypto'

/** What a digest is of; part of its input, so that equal bytes of different kinds do not match. None begins another. */
export type DigestPurpose = 'frame' | 'wal' | 'history'

/**
 * The digest that may be seen outside: equal plaintext is recognised by whoever holds the digest key, and cannot be guessed
 * by anyone else. First 16 bytes of HMAC-SHA-256(digest key, purpose ‖ plaintext). A KeyObject is the cheaper key where many are made.
 */
export function keyedDigest(digestKey: Uint8Array | KeyObject, purpose: DigestPurpose, plaintext: Uint8Array): Buffer {
  return createHmac('sha256', digestKey).update(purpose).update(plaintext).digest().subarray(0, 16)
}

/** The digest of a timeline history file, bound to its place: the same text under another system or timeline is another file. */
export function timelineHistoryDigest(
  digestKey: Uint8Array,
  place: { readonly systemId: bigint; readonly timeline: number },
  bytes: Uint8Array,
): Buffer {
  const bound = Buffer.alloc(12)
  bound.writeBigUInt64BE(place.systemId, 0)
  bound.writeUInt32BE(place.timeline, 8)
  return keyedDigest(digestKey, 'history', Buffer.concat([bound, bytes]))
}
