/** The format does not change by accident: ../vectors/format-1.json, made once and frozen. */
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { openFrame, sealFrame } from './frame.ts'
import { KeyEncryptionKey, type Wrap } from './key-encryption-key.ts'
import { type DigestPurpose, keyedDigest, timelineHistoryDigest } from './keyed-digest.ts'
import { openKeyring } from './keyring.ts'
import { DocumentSigner, openSignedDocument } from './signed-document.ts'
import { type StreamIdentity, encodeIdentity, encodeStreamHeader, openStreamHeader } from './stream-header.ts'
import { FORMAT_VERSION } from './suite.ts'

interface Vectors {
  readonly version: number
  readonly identities: { identity: Record<string, string | number>; bytes: string }[]
  readonly streams: {
    suite: 1 | 2
    identity: Record<string, string | number>
    dataKeyId: string
    dataKey: string
    salt: string
    keys: Record<'header' | 'encrypt' | 'mac' | 'iv', string>
    header: string
    frames: { note: string; index: number; flags: number; plaintext: string; frame: string }[]
  }[]
  readonly keyedDigests: { purpose: DigestPurpose; digestKey: string; plaintext: string; digest: string }[]
  readonly timelineHistoryDigest: {
    digestKey: string
    systemId: string
    timeline: number
    text: string
    digest: string
  }
  readonly keyEncryptionKey: { key: string; id: string; wraps: { context: string; secret: string; wrap: Wrap }[] }
  readonly signedDocument: { seed: string; publicKey: string; payload: object; document: string }
  readonly keyring: {
    kek: string
    setId: string
    publicKey: string
    document: string
    dataKey: { id: string; bytes: string }
    digestKey: string
  }
}

const vectors = JSON.parse(readFileSync(new URL('../vectors/format-1.json', import.meta.url), 'utf8')) as Vectors
const hex = (text: string): Buffer => Buffer.from(text, 'hex')

/** JSON has no 64-bit integers: they stand as decimal text. */
function identityOf(fields: Record<string, string | number>): StreamIdentity {
  const wide = fields['kind'] === 'wal' ? ['systemId', 'segment'] : []
  const entries = Object.entries(fields).map(([name, value]) => [name, wide.includes(name) ? BigInt(value) : value])
  return Object.fromEntries(entries) as StreamIdentity
}

test('the vectors are of this format version', () => expect(vectors.version).toBe(FORMAT_VERSION))

test.each(vectors.identities)('identity of kind $identity.kind', ({ identity, bytes }) => {
  expect(encodeIdentity(identityOf(identity)).toString('hex')).toBe(bytes)
})

describe.each(vectors.streams)(
  'suite $suite',
  ({ suite, identity, dataKeyId, dataKey, salt, keys, header, frames }) => {
    const stream = encodeStreamHeader(suite, identityOf(identity), dataKeyId, hex(dataKey), hex(salt))

    test('keys and header', () => {
      for (const role of ['header', 'encrypt', 'mac', 'iv'] as const) {
        expect(stream.keys[role].export().toString('hex')).toBe(keys[role])
      }
      expect(stream.header.bytes.toString('hex')).toBe(header)
      const opened = openStreamHeader(hex(header), () => hex(dataKey), identityOf(identity), 'the vector')
      expect(opened.header).toEqual(stream.header)
    })

    test.each(frames)('frame $index: $note', ({ index, flags, plaintext, frame }) => {
      const opened = openFrame(stream, hex(frame), 0, index, 'the vector')
      expect(opened.plaintext.toString('hex')).toBe(plaintext)
      expect(opened.last).toBe((flags & 2) !== 0)
      expect(opened.table).toBe((flags & 4) !== 0)
      if ((flags & 1) !== 0) return
      const sealed = sealFrame(stream, index, hex(plaintext), { last: opened.last, table: opened.table }, 0)
      expect(Buffer.concat(sealed.parts).toString('hex')).toBe(frame)
      expect(sealed.bytes).toBe(frame.length / 2)
    })
  },
)

test.each(vectors.keyedDigests)('keyed digest for $purpose', ({ purpose, digestKey, plaintext, digest }) => {
  expect(keyedDigest(hex(digestKey), purpose, hex(plaintext)).toString('hex')).toBe(digest)
})

test('the digest of a timeline history file', () => {
  const { digestKey, systemId, timeline, text, digest } = vectors.timelineHistoryDigest
  const made = timelineHistoryDigest(hex(digestKey), { systemId: BigInt(systemId), timeline }, Buffer.from(text))
  expect(made.toString('hex')).toBe(digest)
})

test('KEK id and wraps', () => {
  const { key, id, wraps } = vectors.keyEncryptionKey
  const kek = new KeyEncryptionKey(hex(key))
  expect(kek.id).toBe(id)
  for (const { context, secret, wrap } of wraps) expect(kek.unwrap(wrap, context).toString('hex')).toBe(secret)
})

test('a signed document, byte for byte', () => {
  const { seed, publicKey, payload, document } = vectors.signedDocument
  const signer = new DocumentSigner(hex(seed))
  expect(signer.publicKey).toBe(publicKey)
  expect(signer.sign(payload).toString()).toBe(document)
  expect(openSignedDocument(Buffer.from(document), publicKey, 'the vector')).toEqual(payload)
})

test('a keyring', () => {
  const { kek, setId, publicKey, document, dataKey, digestKey } = vectors.keyring
  const documents = [{ name: 'keys/keyring-1-00.json', bytes: Buffer.from(document) }]
  const keyring = openKeyring(setId, documents, [new KeyEncryptionKey(hex(kek))], publicKey)
  expect(keyring.writeKey).toEqual({ id: dataKey.id, bytes: hex(dataKey.bytes) })
  expect(keyring.digestKey.toString('hex')).toBe(digestKey)
})
