/**
 * The key-encryption key (KEK): the one secret an operator keeps.
 *
 * It never touches data. It wraps the data keys of a keyring, so that rotating it rewrites a few
 * hundred bytes. Its id is derived from it and safe to show. Format: docs/repository-format.md, section 5.
 */
import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto'
import { Redacted, parseKeyText } from '@tidemark/kernel'
import { KeyMalformedError, SignatureRefusedError } from './errors.ts'

const EMPTY = Buffer.alloc(0)

/** One secret, sealed under one KEK. */
export interface Wrap {
  readonly type: 'kek-aes-256-gcm'
  readonly kek: string
  readonly nonce: string
  readonly sealed: string
}

export class KeyEncryptionKey {
  /** 16 hex digits, safe to print. */
  readonly id: string
  readonly #wrapping: Redacted<Buffer>

  constructor(key: Uint8Array) {
    if (key.length !== 32) throw new KeyMalformedError('the key-encryption key')
    this.id = Buffer.from(hkdfSync('sha256', key, EMPTY, 'tidemark kek id', 32)).toString('hex', 0, 8)
    this.#wrapping = new Redacted(Buffer.from(hkdfSync('sha256', key, EMPTY, 'tidemark kek wrap', 32)))
  }

  /** `context` is bound: a wrap made for one purpose does not open for another. */
  wrap(secret: Uint8Array, context: string): Wrap {
    const nonce = randomBytes(12)
    const cipher = createCipheriv('aes-256-gcm', this.#wrapping.reveal(), nonce).setAAD(Buffer.from(context, 'ascii'))
    const sealed = Buffer.concat([cipher.update(secret), cipher.final(), cipher.getAuthTag()])
    return { type: 'kek-aes-256-gcm', kek: this.id, nonce: nonce.toString('base64'), sealed: sealed.toString('base64') }
  }

  /** @throws {SignatureRefusedError} the wrap was changed, or was made for another purpose. */
  unwrap(wrap: Wrap, context: string): Buffer {
    const sealed = Buffer.from(wrap.sealed, 'base64')
    const nonce = Buffer.from(wrap.nonce, 'base64')
    if (sealed.length !== 48 || nonce.length !== 12)
      throw new SignatureRefusedError('a wrapped key in the keyring', 'shape')
    const opener = createDecipheriv('aes-256-gcm', this.#wrapping.reveal(), nonce, { authTagLength: 16 })
    opener.setAAD(Buffer.from(context, 'ascii')).setAuthTag(sealed.subarray(32))
    try {
      return Buffer.concat([opener.update(sealed.subarray(0, 32)), opener.final()])
    } catch (cause) {
      throw new SignatureRefusedError('a wrapped key in the keyring', 'signature', cause)
    }
  }
}

/** Reads a KEK from its text form. @throws {KeyMalformedError} never showing the text. */
export function parseKeyEncryptionKey(text: string, where: string): KeyEncryptionKey {
  const bytes = parseKeyText(text)
  if (bytes === undefined) throw new KeyMalformedError(where)
  return new KeyEncryptionKey(bytes)
}

/** A new KEK as 64 hex digits. */
export function generateKeyText(): string {
  return randomBytes(32).toString('hex')
}
