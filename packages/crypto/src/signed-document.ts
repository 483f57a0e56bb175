/**
 * Signed documents: JSON that API and maintenance can trust without holding a secret.
 *
 * The signature is over the exact stored bytes of the payload line, so no canonical form of JSON is
 * needed, and a reader must parse only after it has verified. Format: docs/repository-format.md, section 10.
 */
import { type KeyObject, createPrivateKey, createPublicKey, generateKeyPairSync, sign, verify } from 'node:crypto'
import { SignatureRefusedError } from './errors.ts'

const PKCS8_ED25519 = Buffer.from('302e020100300506032b657004220420', 'hex')
const SPKI_ED25519 = Buffer.from('302a300506032b6570032100', 'hex')
const LINE_FEED = 0x0a

export class DocumentSigner {
  /** base64 of the raw 32-byte Ed25519 public key. */
  readonly publicKey: string
  readonly #privateKey: KeyObject

  /** @param seed the 32-byte private key of RFC 8032. */
  constructor(seed: Uint8Array) {
    this.#privateKey = createPrivateKey({ key: Buffer.concat([PKCS8_ED25519, seed]), format: 'der', type: 'pkcs8' })
    this.publicKey = rawPublicKey(createPublicKey(this.#privateKey))
  }

  /** The document's bytes as they are to be stored. */
  sign(payload: object): Buffer {
    const line = Buffer.from(JSON.stringify(payload))
    const signature = sign(null, line, this.#privateKey).toString('base64')
    const trailer = JSON.stringify({ signature, publicKey: this.publicKey })
    return Buffer.concat([line, Buffer.from(`\n${trailer}\n`)])
  }
}

/** 32 random bytes that make a DocumentSigner. */
export function generateSigningSeed(): Buffer {
  const { privateKey } = generateKeyPairSync('ed25519')
  return privateKey.export({ format: 'der', type: 'pkcs8' }).subarray(PKCS8_ED25519.length)
}

/**
 * The payload of a signed document, parsed after its signature held.
 *
 * @param trusted base64 public key; the one named inside the document is not believed.
 * @throws {SignatureRefusedError}
 */
export function openSignedDocument(bytes: Uint8Array, trusted: string, what: string): unknown {
  const stored = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const end = stored.indexOf(LINE_FEED)
  if (end < 0) throw new SignatureRefusedError(what, 'shape')
  const trailer = parseTrailer(stored.subarray(end + 1), what)
  if (trailer.publicKey !== trusted) throw new SignatureRefusedError(what, 'signer')
  const payload = stored.subarray(0, end)
  const key = createPublicKey({
    key: Buffer.concat([SPKI_ED25519, Buffer.from(trusted, 'base64')]),
    format: 'der',
    type: 'spki',
  })
  if (!verify(null, payload, key, Buffer.from(trailer.signature, 'base64'))) {
    throw new SignatureRefusedError(what, 'signature')
  }
  return JSON.parse(payload.toString('utf8'))
}

function parseTrailer(line: Buffer, what: string): { signature: string; publicKey: string } {
  if (line.length < 2 || line.indexOf(LINE_FEED) !== line.length - 1) throw new SignatureRefusedError(what, 'shape')
  let trailer: unknown
  try {
    trailer = JSON.parse(line.toString('utf8'))
  } catch (cause) {
    throw new SignatureRefusedError(what, 'shape', cause)
  }
  const { signature, publicKey } = (trailer ?? {}) as Record<string, unknown>
  if (typeof signature !== 'string' || typeof publicKey !== 'string') throw new SignatureRefusedError(what, 'shape')
  // One spelling only: a second base64 form of the same signature would be a second document.
  if (line.toString('utf8') !== `${JSON.stringify({ signature, publicKey })}\n`)
    throw new SignatureRefusedError(what, 'shape')
  const raw = Buffer.from(signature, 'base64')
  if (raw.length !== 64 || raw.toString('base64') !== signature) throw new SignatureRefusedError(what, 'shape')
  return { signature, publicKey }
}

function rawPublicKey(key: KeyObject): string {
  return key.export({ format: 'der', type: 'spki' }).subarray(SPKI_ED25519.length).toString('base64')
}
