/** The primitives, as this package calls them, give what the standards say. Vectors: ../vectors/standards.json. */
import { createCipheriv, createDecipheriv, createSecretKey, hkdfSync, sign } from 'node:crypto'
import { createPrivateKey } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { SignatureRefusedError } from './errors.ts'
import { sealFrame } from './frame.ts'
import { keyedDigest } from './keyed-digest.ts'
import { DocumentSigner, openSignedDocument } from './signed-document.ts'
import { encodeStreamHeader } from './stream-header.ts'
import { sampleIdentity } from './testing/sealed-samples.ts'

interface Standards {
  readonly hkdfSha256: { name: string; ikm: string; salt: string; info: string; okm: string }[]
  readonly hmacSha256: { name: string; key: string; data: string; mac: string }[]
  readonly aes256: { key: string; iv: string; plaintext: string; cbc: string; ecb: string }
  readonly aes256ZeroKeyZeroBlock: string
  readonly aes256Gcm: {
    name: string
    key: string
    iv: string
    plaintext: string
    aad: string
    ciphertext: string
    tag: string
  }[]
  readonly ed25519: { name: string; seed: string; publicKey: string; message: string; signature: string }[]
}

const standards = JSON.parse(readFileSync(new URL('../vectors/standards.json', import.meta.url), 'utf8')) as Standards
const hex = (text: string): Buffer => Buffer.from(text, 'hex')
const FRAME_START = 12

test.each(standards.hkdfSha256)('HKDF-SHA-256 of RFC 5869, $name', ({ ikm, salt, info, okm }) => {
  const length = okm.length / 2
  expect(Buffer.from(hkdfSync('sha256', hex(ikm), hex(salt), hex(info), length)).toString('hex')).toBe(okm)
  // Keys are 32 bytes: the first block of the same output.
  expect(Buffer.from(hkdfSync('sha256', hex(ikm), hex(salt), hex(info), 32)).toString('hex')).toBe(okm.slice(0, 64))
})

test.each(standards.hmacSha256)('a keyed digest is the first half of HMAC-SHA-256, RFC 4231 $name', (vector) => {
  const data = hex(vector.data)
  // The purpose is the beginning of the data; where it ends makes no difference to the MAC.
  const purpose = data.toString('latin1', 0, 4) as never
  expect(keyedDigest(hex(vector.key), purpose, data.subarray(4)).toString('hex')).toBe(vector.mac.slice(0, 32))
})

test('the IV of frame 0 is one AES-256-ECB block, and frames are AES-256-CBC as in SP 800-38A, F.2.5', () => {
  const { key, iv, plaintext, cbc } = standards.aes256
  const stream = streamUnder(1, hex(key))
  // The IV of frame 0 under an all-zero IV key is the zero block's known answer.
  const ownIv = hex(standards.aes256ZeroKeyZeroBlock)
  const blocks = hex(plaintext)
  for (let i = 0; i < 16; i += 1) blocks[i] = (blocks[i] ?? 0) ^ (ownIv[i] ?? 0) ^ (hex(iv)[i] ?? 0)

  const sealed = Buffer.concat(sealFrame(stream, 0, blocks, { last: false, table: false }, 0).parts)

  expect(sealed.toString('hex', FRAME_START, FRAME_START + 64)).toBe(cbc)
})

test('AES-256-ECB of SP 800-38A, F.1.5, called as for an IV', () => {
  const { key, plaintext, ecb } = standards.aes256
  for (let at = 0; at < 64; at += 16) {
    const cipher = createCipheriv('aes-256-ecb', hex(key), Buffer.alloc(0)).setAutoPadding(false)
    expect(cipher.update(hex(plaintext).subarray(at, at + 16)).toString('hex')).toBe(ecb.slice(at * 2, at * 2 + 32))
  }
})

test.each(standards.aes256Gcm)('AES-256-GCM, $name, both ways', ({ key, iv, plaintext, aad, ciphertext, tag }) => {
  const cipher = createCipheriv('aes-256-gcm', hex(key), hex(iv)).setAAD(hex(aad))
  expect(Buffer.concat([cipher.update(hex(plaintext)), cipher.final()]).toString('hex')).toBe(ciphertext)
  expect(cipher.getAuthTag().toString('hex')).toBe(tag)
  const opener = createDecipheriv('aes-256-gcm', hex(key), hex(iv), { authTagLength: 16 })
  opener.setAAD(hex(aad)).setAuthTag(hex(tag))
  expect(Buffer.concat([opener.update(hex(ciphertext)), opener.final()]).toString('hex')).toBe(plaintext)
})

test('frame 0 of suite 2 has the all-zero nonce: the ciphertext of GCM test case 14', () => {
  const zero = standards.aes256Gcm.find(({ name }) => name === 'test case 14')
  const stream = streamUnder(2, hex(zero?.key ?? ''))
  const sealed = Buffer.concat(sealFrame(stream, 0, hex(zero?.plaintext ?? ''), { last: false, table: false }, 0).parts)
  expect(sealed.toString('hex', FRAME_START, FRAME_START + 16)).toBe(zero?.ciphertext)
})

test.each(standards.ed25519)('Ed25519 of RFC 8032, $name', ({ seed, publicKey, message, signature }) => {
  expect(Buffer.from(new DocumentSigner(hex(seed)).publicKey, 'base64').toString('hex')).toBe(publicKey)
  const pkcs8 = Buffer.concat([hex('302e020100300506032b657004220420'), hex(seed)])
  const key = createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' })
  expect(sign(null, hex(message), key).toString('hex')).toBe(signature)

  const trusted = hex(publicKey).toString('base64')
  const document = (bytes: Buffer): Buffer =>
    Buffer.concat([
      hex(message),
      Buffer.from(`\n${JSON.stringify({ signature: bytes.toString('base64'), publicKey: trusted })}\n`),
    ])
  // The message is no JSON, which only shows once its signature has held.
  expect(() => openSignedDocument(document(hex(signature)), trusted, 'it')).toThrow(SyntaxError)
  const changed = hex(signature)
  changed[3] = (changed[3] ?? 0) ^ 1
  expect(() => openSignedDocument(document(changed), trusted, 'it')).toThrow(SignatureRefusedError)
})

function streamUnder(suite: 1 | 2, encrypt: Buffer): Parameters<typeof sealFrame>[0] {
  const { header } = encodeStreamHeader(suite, sampleIdentity, '00'.repeat(16), Buffer.alloc(32), Buffer.alloc(32))
  const unused = createSecretKey(Buffer.alloc(32))
  return { header, keys: { header: unused, encrypt: createSecretKey(encrypt), mac: unused, iv: unused } }
}
