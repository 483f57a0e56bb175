import { createHmac } from 'node:crypto'

/** What a digest is of; part of its input, so that equal bytes of different kinds do not match. */
export type DigestPurpose = 'frame' | 'wal' | 'history'

/**
 * The digest that may be seen outside: equal plaintext is recognised by whoever holds the digest key, and cannot be guessed
 * by anyone else. First 16 bytes of HMAC-SHA-256(digest key, purpose ‖ plaintext).
 */
export function keyedDigest(digestKey: Uint8Array, purpose: DigestPurpose, plaintext: Uint8Array): Buffer {
  return createHmac('sha256', digestKey).update(purpose).update(plaintext).digest().subarray(0, 16)
}
