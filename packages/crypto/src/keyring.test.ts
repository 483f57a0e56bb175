import { randomBytes } from 'node:crypto'
import { inspect } from 'node:util'
import { expect, test } from 'vitest'
import {
  KeyMissingError,
  SealRefusedError,
  SignatureRefusedError,
  UnknownDataKeyError,
  WrongKeyError,
} from './errors.ts'
import { KeyEncryptionKey, type Wrap } from './key-encryption-key.ts'
import { type Keyring, createKeyring, openKeyring } from './keyring.ts'

const SET = '00000000000000aa'
const kekOf = (name: number): KeyEncryptionKey => new KeyEncryptionKey(Buffer.alloc(32, name))
const kek = kekOf(1)
const noon = new Date('2026-01-01T12:00:00Z')

interface Payload {
  format: string
  version: number
  setId: string
  number: number
  createdAt: string
  dataKeys: { id: string; createdAt: string; wraps: Wrap[] }[]
  digestKey: { wraps: Wrap[] }
  requires: string[]
  signing: { publicKey: string; createdAt: string; wraps: Wrap[] }[]
}

function payloadOf(document: Buffer): Payload {
  return JSON.parse(document.toString().split('\n')[0] ?? '') as Payload
}

/** A later keyring of the same set: one data key more, everything wrapped under `under`. As a rotation writes it. */
function rotated(
  { document, keyring }: { document: Buffer; keyring: Keyring },
  under: KeyEncryptionKey,
  createdAt: string,
  number = 2,
): { document: Buffer; dataKeyId: string } {
  const payload = payloadOf(document)
  const id = randomBytes(16).toString('hex')
  const wrap = (secret: Uint8Array, purpose: string): Wrap[] => [under.wrap(secret, `tidemark wrap ${SET} ${purpose}`)]
  const [signing] = payload.signing as [Payload['signing'][0]]
  const seed = kek.unwrap(signing.wraps[0] as Wrap, `tidemark wrap ${SET} signing-key ${signing.publicKey}`)
  const next: Payload = {
    ...payload,
    number,
    createdAt,
    dataKeys: [
      ...payload.dataKeys.map((key) => ({ ...key, wraps: wrap(keyring.dataKey(key.id), `data-key ${key.id}`) })),
      { id, createdAt, wraps: wrap(randomBytes(32), `data-key ${id}`) },
    ],
    digestKey: { wraps: wrap(keyring.digestKey, 'digest-key') },
    signing: [{ ...signing, wraps: wrap(seed, `signing-key ${signing.publicKey}`) }],
  }
  return { document: keyring.signer.sign(next), dataKeyId: id }
}

const named = (...documents: Buffer[]): { name: string; bytes: Buffer }[] =>
  documents.map((bytes, i) => ({ name: `keys/keyring-${i + 1}-00.json`, bytes }))

test('a keyring opens under its KEK and gives back every key', () => {
  const { document, keyring } = createKeyring(SET, kek, noon)
  const opened = openKeyring(SET, named(document), [kek], keyring.publicKey)
  expect(opened.writeKey).toEqual(keyring.writeKey)
  expect(opened.digestKey).toEqual(keyring.digestKey)
  expect(opened.signer.sign({ a: 1 })).toEqual(keyring.signer.sign({ a: 1 }))
  expect(() => opened.dataKey('00'.repeat(16))).toThrow(UnknownDataKeyError)
})

test('a keyring document shows no key', () => {
  const { document, keyring } = createKeyring(SET, kek, noon)
  for (const secret of [keyring.writeKey.bytes, keyring.digestKey]) {
    expect(document.includes(secret)).toBe(false)
    expect(document.includes(secret.toString('base64').slice(0, 40))).toBe(false)
    expect(document.includes(secret.toString('hex'))).toBe(false)
  }
})

test('without a KEK, or with a wrong one, it says which one is asked for', () => {
  const { document, keyring } = createKeyring(SET, kek, noon)
  expect(() => openKeyring(SET, named(document), [], keyring.publicKey)).toThrow(KeyMissingError)
  const other = kekOf(2)
  expect(() => openKeyring(SET, named(document), [other], keyring.publicKey)).toThrow(WrongKeyError)
  expect(() => openKeyring(SET, named(document), [other], keyring.publicKey)).toThrow(
    expect.objectContaining({ facts: { given: [other.id], wanted: [kek.id] } }),
  )
})

test('an older KEK beside the current one opens what is still wrapped under it', () => {
  const { document, keyring } = createKeyring(SET, kek, noon)
  const opened = openKeyring(SET, named(document), [kekOf(2), kek], keyring.publicKey)
  const { id, bytes } = keyring.writeKey
  expect(opened.dataKey(id)).toEqual(bytes)
  // But nothing new is sealed before the rotation has wrapped a key for the current one.
  expect(() => opened.writeKey).toThrow(WrongKeyError)
})

test('the holder of a retired KEK does not choose what new data is sealed under, whatever he signs', () => {
  const first = createKeyring(SET, kek, noon)
  const current = kekOf(2)
  const second = rotated(first, current, '2026-02-01T00:00:00.000Z')
  const theirs = rotated(first, kek, '9999-01-01T00:00:00.000Z', 99)
  const documents = named(first.document, second.document, theirs.document)
  const opened = openKeyring(SET, documents, [current, kek], first.keyring.publicKey)
  expect(opened.writeKey.id).toBe(second.dataKeyId)
})

test('a rotation on a host whose clock is slow is used all the same', () => {
  const first = createKeyring(SET, kek, noon)
  const second = rotated(first, kek, '2001-01-01T00:00:00.000Z')
  const opened = openKeyring(SET, named(second.document, first.document), [kek], first.keyring.publicKey)
  expect(opened.writeKey.id).toBe(second.dataKeyId)
})

test('a data key that only others can unwrap, and wraps of a later kind, keep nobody out', () => {
  const { document, keyring } = createKeyring(SET, kek, noon)
  const payload = payloadOf(document)
  const foreign = { type: 'hpke-x25519', kek: kek.id, nonce: '', sealed: '' } as unknown as Wrap
  const id = 'ee'.repeat(16)
  const signed = keyring.signer.sign({
    ...payload,
    number: 2,
    dataKeys: [
      { id, createdAt: '2027-01-01T00:00:00.000Z', wraps: [foreign] },
      ...payload.dataKeys.map((key) => ({ ...key, wraps: [foreign, ...key.wraps] })),
    ],
  })
  const opened = openKeyring(SET, named(signed), [kek], keyring.publicKey)
  expect(opened.writeKey).toEqual(keyring.writeKey)
  expect(opened.dataKeys()).toEqual([keyring.writeKey])
  expect(() => opened.dataKey(id)).toThrow(WrongKeyError)
})

test('a keyring that requires an unknown feature closes the set', () => {
  const { document, keyring } = createKeyring(SET, kek, noon)
  const later = keyring.signer.sign({ ...payloadOf(document), number: 2, requires: ['tombstones'] })
  expect(() => openKeyring(SET, named(document, later), [kek], keyring.publicKey)).toThrow(
    expect.objectContaining({ code: 'SEAL_VERSION', facts: expect.objectContaining({ feature: 'tombstones' }) }),
  )
})

test('after a rotation the new KEK alone opens old and new data keys, and writes go under the new one', () => {
  const first = createKeyring(SET, kek, noon)
  const second = rotated(first, kekOf(2), '2026-02-01T00:00:00.000Z')
  const opened = openKeyring(SET, named(first.document, second.document), [kekOf(2)], first.keyring.publicKey)
  expect(opened.writeKey.id).toBe(second.dataKeyId)
  expect(opened.dataKey(first.keyring.writeKey.id)).toEqual(first.keyring.writeKey.bytes)
  expect(opened.digestKey).toEqual(first.keyring.digestKey)
})

test('two keyrings of one number are merged by union, in any order', () => {
  const first = createKeyring(SET, kek, noon)
  const left = rotated(first, kek, '2026-02-01T00:00:00.000Z')
  const right = rotated(first, kek, '2026-02-01T00:00:00.001Z')
  for (const documents of [
    [first.document, left.document, right.document],
    [right.document, left.document, first.document],
  ]) {
    const opened = openKeyring(SET, named(...documents), [kek], first.keyring.publicKey)
    const ids = opened.dataKeys().map(({ id }) => id)
    expect(ids.toSorted()).toEqual([first.keyring.writeKey.id, left.dataKeyId, right.dataKeyId].toSorted())
    expect(opened.writeKey.id).toBe(right.dataKeyId)
  }
})

test('of two data keys of one time the greater id is written under', () => {
  const first = createKeyring(SET, kek, noon)
  const left = rotated(first, kek, '2026-02-01T00:00:00.000Z')
  const right = rotated(first, kek, '2026-02-01T00:00:00.000Z')
  const opened = openKeyring(SET, named(left.document, right.document), [kek], first.keyring.publicKey)
  expect(opened.writeKey.id).toBe([left.dataKeyId, right.dataKeyId].toSorted()[1])
})

test('a keyring that was changed is refused, whatever was changed', () => {
  const { document, keyring } = createKeyring(SET, kek, noon)
  for (let at = 0; at < document.length; at += 3) {
    const changed = Buffer.from(document)
    changed[at] = (changed[at] ?? 0) ^ 4
    expect(() => openKeyring(SET, named(changed), [kek], keyring.publicKey)).toThrow(SignatureRefusedError)
  }
})

test('a wrap that was moved to another purpose is refused, even by whoever can sign', () => {
  const { document, keyring } = createKeyring(SET, kek, noon)
  const payload = payloadOf(document)
  const [dataKey] = payload.dataKeys
  const moved: Payload[] = [
    { ...payload, digestKey: { wraps: dataKey?.wraps ?? [] } },
    { ...payload, dataKeys: [{ ...(dataKey as Payload['dataKeys'][0]), wraps: payload.digestKey.wraps }] },
    { ...payload, dataKeys: [{ ...(dataKey as Payload['dataKeys'][0]), id: 'ff'.repeat(16) }] },
    { ...payload, signing: payload.signing.map((key) => ({ ...key, wraps: payload.digestKey.wraps })) },
  ]
  for (const each of moved) {
    const signed = keyring.signer.sign(each)
    expect(() => openKeyring(SET, named(signed), [kek], keyring.publicKey).writeKey).toThrow(SignatureRefusedError)
  }
})

test('a set with a signer of its own cannot borrow the wraps of another', () => {
  const ours = createKeyring(SET, kek, noon)
  const theirs = createKeyring(SET, kekOf(66), noon)
  // Whoever writes to the bucket offers keyring and public key of his own, with our wrapped keys in it.
  const forged = theirs.keyring.signer.sign({
    ...payloadOf(ours.document),
    signing: [
      { publicKey: theirs.keyring.publicKey, createdAt: '', wraps: payloadOf(ours.document).signing[0]?.wraps ?? [] },
    ],
  })
  expect(() => openKeyring(SET, named(forged), [kek], theirs.keyring.publicKey)).toThrow(SignatureRefusedError)
  expect(() => openKeyring(SET, named(forged), [kek], ours.keyring.publicKey)).toThrow(SignatureRefusedError)
})

test('a keyring of another set, of another version, or of none is refused by its own reason', () => {
  const { document, keyring } = createKeyring(SET, kek, noon)
  expect(() => openKeyring('00000000000000ab', named(document), [kek], keyring.publicKey)).toThrow(
    expect.objectContaining({ code: 'SIGNATURE_REFUSED', facts: { why: 'set' } }),
  )
  const newer = keyring.signer.sign({ ...payloadOf(document), version: 2 })
  expect(() => openKeyring(SET, named(document, newer), [kek], keyring.publicKey)).toThrow(SealRefusedError)
  expect(() => openKeyring(SET, named(document, newer), [kek], keyring.publicKey)).toThrow(
    expect.objectContaining({ code: 'SEAL_VERSION' }),
  )
  const record = keyring.signer.sign({ format: 'tidemark-backup', version: 1, setId: SET })
  expect(() => openKeyring(SET, named(record), [kek], keyring.publicKey)).toThrow(SignatureRefusedError)
  expect(() => openKeyring(SET, [], [kek], keyring.publicKey)).toThrow(SignatureRefusedError)
})

test('an error about keys shows ids, never keys', () => {
  const { document, keyring } = createKeyring(SET, kek, noon)
  const shown: string[] = []
  for (const keks of [[], [kekOf(2)]]) {
    try {
      openKeyring(SET, named(document), keks, keyring.publicKey)
    } catch (error) {
      shown.push(inspect(error, { depth: 9 }))
    }
  }
  expect(shown).toHaveLength(2)
  for (const text of shown) expect(text).not.toContain(Buffer.alloc(32, 2).toString('hex').slice(0, 20))
})
