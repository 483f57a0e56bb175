/**
 * The keyring: the keys that seal a repository set, wrapped under the operator's KEK.
 *
 * Keyrings are append-only objects. Reading takes the union of all of them, so two administrators who rotate at once lose
 * nothing. The public key is authentic for whoever holds the KEK, because it is bound into the wrap of its private half.
 * Format: docs/repository-format.md, section 5.
 */
import { randomBytes } from 'node:crypto'
import {
  KeyMissingError,
  SealRefusedError,
  SignatureRefusedError,
  UnknownDataKeyError,
  WrongKeyError,
} from './errors.ts'
import type { KeyEncryptionKey, Wrap } from './key-encryption-key.ts'
import { DocumentSigner, generateSigningSeed, openSignedDocument } from './signed-document.ts'
import { FORMAT_VERSION } from './suite.ts'

export interface DataKey {
  /** 32 hex digits. */
  readonly id: string
  readonly bytes: Buffer
}

interface KeyringPayload {
  readonly format: 'tidemark-keyring'
  readonly version: number
  readonly setId: string
  readonly number: number
  readonly createdAt: string
  readonly dataKeys: readonly { readonly id: string; readonly createdAt: string; readonly wraps: readonly Wrap[] }[]
  readonly digestKey: { readonly wraps: readonly Wrap[] }
  readonly signing: { readonly publicKey: string; readonly wraps: readonly Wrap[] }
}

/** Every key of a set, unwrapped. Lives in memory only. */
export class Keyring {
  readonly setId: string
  readonly publicKey: string
  /** The key that new streams are sealed under. */
  readonly writeKey: DataKey
  readonly digestKey: Buffer
  readonly signer: DocumentSigner
  readonly #dataKeys: ReadonlyMap<string, Buffer>

  constructor(
    setId: string,
    dataKeys: ReadonlyMap<string, Buffer>,
    writeKeyId: string,
    digestKey: Buffer,
    signer: DocumentSigner,
  ) {
    this.setId = setId
    this.#dataKeys = dataKeys
    this.writeKey = { id: writeKeyId, bytes: this.dataKey(writeKeyId) }
    this.digestKey = digestKey
    this.signer = signer
    this.publicKey = signer.publicKey
  }

  /** @throws {UnknownDataKeyError} Bound, so that it can be handed on as `keyOf`. */
  readonly dataKey = (id: string): Buffer => {
    const key = this.#dataKeys.get(id)
    if (key === undefined) throw new UnknownDataKeyError(id)
    return key
  }

  dataKeys(): DataKey[] {
    return [...this.#dataKeys].map(([id, bytes]) => ({ id, bytes }))
  }
}

/** A new set's first keyring, as the bytes to store. */
export function createKeyring(setId: string, kek: KeyEncryptionKey, now: Date): { document: Buffer; keyring: Keyring } {
  const seed = generateSigningSeed()
  const signer = new DocumentSigner(seed)
  const dataKey = { id: randomBytes(16).toString('hex'), bytes: randomBytes(32) }
  const digestKey = randomBytes(32)
  const createdAt = now.toISOString()
  const payload: KeyringPayload = {
    format: 'tidemark-keyring',
    version: FORMAT_VERSION,
    setId,
    number: 1,
    createdAt,
    dataKeys: [
      { id: dataKey.id, createdAt, wraps: [kek.wrap(dataKey.bytes, wrapContext(setId, `data-key ${dataKey.id}`))] },
    ],
    digestKey: { wraps: [kek.wrap(digestKey, wrapContext(setId, 'digest-key'))] },
    signing: {
      publicKey: signer.publicKey,
      wraps: [kek.wrap(seed, wrapContext(setId, `signing-key ${signer.publicKey}`))],
    },
  }
  const keyring = new Keyring(setId, new Map([[dataKey.id, dataKey.bytes]]), dataKey.id, digestKey, signer)
  return { document: signer.sign(payload), keyring }
}

/**
 * The keys in force of one set.
 *
 * @param documents all keyring objects, in any order, with their names for messages.
 * @param keks the current KEK first, older ones after it.
 * @param publicKey the set's public key: pinned, else the one in tidemark.json.
 * @throws {KeyMissingError} no KEK. @throws {WrongKeyError} none of them is asked for.
 * @throws {SignatureRefusedError} a keyring was changed, or belongs to another set.
 * @throws {SealRefusedError} version: another format version wrote it.
 */
export function openKeyring(
  setId: string,
  documents: readonly { name: string; bytes: Buffer }[],
  keks: readonly KeyEncryptionKey[],
  publicKey: string,
): Keyring {
  if (keks.length === 0) throw new KeyMissingError('opening the keyring')
  const payloads = documents.map(({ name, bytes }) => readPayload(name, bytes, setId, publicKey))
  if (payloads.length === 0) throw new SignatureRefusedError(`the keyring of set ${setId}`, 'shape')
  const unwrap = (wraps: readonly Wrap[], purpose: string): Buffer => {
    for (const wrap of wraps) {
      const kek = keks.find(({ id }) => id === wrap.kek)
      if (kek !== undefined) return kek.unwrap(wrap, wrapContext(setId, purpose))
    }
    throw new WrongKeyError(
      keks.map(({ id }) => id),
      [...new Set(wraps.map(({ kek }) => kek))],
    )
  }
  const newest = payloads.reduce((a, b) => (b.number > a.number ? b : a))
  const wrapsById = new Map<string, { createdAt: string; wraps: Wrap[] }>()
  for (const { id, createdAt, wraps } of payloads.flatMap(({ dataKeys }) => dataKeys)) {
    const known = wrapsById.get(id)
    wrapsById.set(id, { createdAt, wraps: [...(known?.wraps ?? []), ...wraps] })
  }
  const dataKeys = new Map([...wrapsById].map(([id, { wraps }]) => [id, unwrap(wraps, `data-key ${id}`)]))
  const [writeKeyId] = [...wrapsById]
    .map(([id, { createdAt }]) => [id, createdAt] as const)
    .reduce((a, b) => (`${b[1]} ${b[0]}` > `${a[1]} ${a[0]}` ? b : a))
  const seed = unwrap(
    payloads.flatMap(({ signing }) => signing.wraps),
    `signing-key ${newest.signing.publicKey}`,
  )
  const digestKey = unwrap(
    payloads.flatMap((payload) => payload.digestKey.wraps),
    'digest-key',
  )
  return new Keyring(setId, dataKeys, writeKeyId, digestKey, new DocumentSigner(seed))
}

function readPayload(name: string, bytes: Buffer, setId: string, publicKey: string): KeyringPayload {
  const payload = openSignedDocument(bytes, publicKey, name) as KeyringPayload
  if (payload.format !== 'tidemark-keyring') throw new SignatureRefusedError(name, 'shape')
  const { version } = payload
  if (version !== FORMAT_VERSION) throw new SealRefusedError('version', name, { version, readable: [FORMAT_VERSION] })
  if (payload.setId !== setId) throw new SignatureRefusedError(name, 'set')
  if (payload.signing.publicKey !== publicKey || payload.dataKeys.length === 0) {
    throw new SignatureRefusedError(name, 'shape')
  }
  return payload
}

function wrapContext(setId: string, purpose: string): string {
  return `tidemark wrap ${setId} ${purpose}`
}
