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
  /** Features that a program must know to open anything in the set. */
  readonly requires?: readonly string[]
  readonly dataKeys: readonly WrappedDataKey[]
  readonly digestKey: { readonly wraps: readonly Wrap[] }
  readonly signing: readonly {
    readonly publicKey: string
    readonly createdAt: string
    readonly wraps: readonly Wrap[]
  }[]
}

interface WrappedDataKey {
  readonly id: string
  readonly createdAt: string
  readonly wraps: readonly Wrap[]
}

/** The keys of a set, unwrapped when they are asked for. Lives in memory only. */
export class Keyring {
  readonly setId: string
  readonly publicKey: string
  readonly digestKey: Buffer
  readonly signer: DocumentSigner
  readonly #dataKeys: DataKeys
  readonly #writeKeyId: string | WrongKeyError

  /** @param writeKeyId or why there is none. */
  constructor(
    setId: string,
    dataKeys: DataKeys,
    writeKeyId: string | WrongKeyError,
    digestKey: Buffer,
    signer: DocumentSigner,
  ) {
    this.setId = setId
    this.#dataKeys = dataKeys
    this.#writeKeyId = writeKeyId
    this.digestKey = digestKey
    this.signer = signer
    this.publicKey = signer.publicKey
  }

  /** The key that new streams are sealed under. @throws {WrongKeyError} no data key is wrapped for the current KEK. */
  get writeKey(): DataKey {
    const id = this.#writeKeyId
    if (typeof id !== 'string') throw id
    return { id, bytes: this.dataKey(id) }
  }

  /** @throws {UnknownDataKeyError} @throws {WrongKeyError} no wrap is for a KEK that was given. Bound, so that it can be handed on as `keyOf`. */
  readonly dataKey = (id: string): Buffer => {
    const key = this.#dataKeys.get(id)
    if (key === undefined) throw new UnknownDataKeyError(id)
    return typeof key === 'function' ? key() : key
  }

  /** Every data key that opens with the KEKs at hand. */
  dataKeys(): DataKey[] {
    const opened: DataKey[] = []
    for (const id of this.#dataKeys.keys()) {
      try {
        opened.push({ id, bytes: this.dataKey(id) })
      } catch (error) {
        if (!(error instanceof WrongKeyError)) throw error
      }
    }
    return opened
  }
}

type DataKeys = ReadonlyMap<string, Buffer | (() => Buffer)>

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
    requires: [],
    dataKeys: [
      { id: dataKey.id, createdAt, wraps: [kek.wrap(dataKey.bytes, wrapContext(setId, `data-key ${dataKey.id}`))] },
    ],
    digestKey: { wraps: [kek.wrap(digestKey, wrapContext(setId, 'digest-key'))] },
    signing: [
      {
        publicKey: signer.publicKey,
        createdAt,
        wraps: [kek.wrap(seed, wrapContext(setId, `signing-key ${signer.publicKey}`))],
      },
    ],
  }
  const keyring = new Keyring(setId, new Map([[dataKey.id, dataKey.bytes]]), dataKey.id, digestKey, signer)
  return { document: signer.sign(payload), keyring }
}

/**
 * The keys in force of one set.
 *
 * @param documents keyring objects whose signature holds, in any order, with their names for messages.
 * @param keks the current KEK first, older ones after it.
 * @param publicKey the set's public key: pinned, else the one in tidemark.json.
 * @throws {KeyMissingError} no KEK. @throws {WrongKeyError} the digest key or the signing key is wrapped for none of them.
 * @throws {SignatureRefusedError} a keyring was changed, or belongs to another set.
 * @throws {SealRefusedError} version: another format version wrote it, or it requires what this one does not know.
 */
export function openKeyring(
  setId: string,
  documents: readonly { name: string; bytes: Buffer }[],
  keks: readonly KeyEncryptionKey[],
  publicKey: string,
): Keyring {
  const [current] = keks
  if (current === undefined) throw new KeyMissingError('opening the keyring')
  const payloads = documents.map(({ name, bytes }) => readPayload(name, bytes, setId, publicKey))
  if (payloads.length === 0) throw new SignatureRefusedError(`the keyring of set ${setId}`, 'shape')
  const unwrap = (wraps: readonly Wrap[], purpose: string): Buffer => {
    for (const wrap of wraps.filter(isKnownWrap)) {
      const kek = keks.find(({ id }) => id === wrap.kek)
      if (kek !== undefined) return kek.unwrap(wrap, wrapContext(setId, purpose))
    }
    throw wrongKey(keks, wraps)
  }
  const wrapped = payloads.flatMap(({ number, dataKeys }) => dataKeys.map((key) => ({ ...key, number })))
  const wrapsOf = new Map<string, Wrap[]>()
  for (const { id, wraps } of wrapped) wrapsOf.set(id, [...(wrapsOf.get(id) ?? []), ...wraps])
  const dataKeys = new Map([...wrapsOf].map(([id, wraps]) => [id, once(() => unwrap(wraps, `data-key ${id}`))]))
  const seed = unwrap(
    payloads.flatMap(({ signing }) =>
      signing.filter((key) => key.publicKey === publicKey).flatMap(({ wraps }) => wraps),
    ),
    `signing-key ${publicKey}`,
  )
  const digestKey = unwrap(
    payloads.flatMap((payload) => payload.digestKey.wraps),
    'digest-key',
  )
  const writeKeyId = newestFor(current, wrapped, wrapsOf) ?? wrongKey([current], [...wrapsOf.values()].flat())
  return new Keyring(setId, dataKeys, writeKeyId, digestKey, new DocumentSigner(seed))
}

function once(unwrap: () => Buffer): () => Buffer {
  let key: Buffer | undefined
  return () => (key ??= unwrap())
}

/** A slow clock must not keep a new key from use, nor the holder of a retired KEK say what new data is sealed under. */
function newestFor(
  current: KeyEncryptionKey,
  wrapped: readonly (WrappedDataKey & { readonly number: number })[],
  wrapsOf: ReadonlyMap<string, readonly Wrap[]>,
): string | undefined {
  const firsts = new Map<string, WrappedDataKey & { readonly number: number }>()
  for (const key of wrapped) {
    const known = firsts.get(key.id)
    if (known === undefined || key.number < known.number) firsts.set(key.id, key)
  }
  const order = ({ number, createdAt, id }: WrappedDataKey & { readonly number: number }): string =>
    `${String(number).padStart(10, '0')} ${createdAt} ${id}`
  return [...firsts.values()]
    .filter(({ id }) => wrapsOf.get(id)?.some((wrap) => isKnownWrap(wrap) && wrap.kek === current.id) === true)
    .toSorted((a, b) => (order(a) < order(b) ? 1 : -1))[0]?.id
}

function isKnownWrap({ type }: { readonly type: string }): boolean {
  return type === 'kek-aes-256-gcm'
}

function wrongKey(keks: readonly KeyEncryptionKey[], wraps: readonly Wrap[]): WrongKeyError {
  return new WrongKeyError(
    keks.map(({ id }) => id),
    [...new Set(wraps.filter(isKnownWrap).map(({ kek }) => kek))],
  )
}

/**
 * Ids of the data keys in a keyring of this set, in their order; none for a document that no reader of this release opens. Needs no key.
 *
 * An id is not secret, and is signed.
 */
export function dataKeyIdsOf(name: string, bytes: Buffer, setId: string, publicKey: string): string[] {
  try {
    return readPayload(name, bytes, setId, publicKey).dataKeys.map(({ id }) => id)
  } catch (error) {
    if (error instanceof SignatureRefusedError || error instanceof SealRefusedError) return []
    throw error
  }
}

function readPayload(name: string, bytes: Buffer, setId: string, publicKey: string): KeyringPayload {
  const payload = openSignedDocument(bytes, publicKey, name) as KeyringPayload
  if (payload.format !== 'tidemark-keyring') throw new SignatureRefusedError(name, 'shape')
  const { version } = payload
  if (version !== FORMAT_VERSION) throw new SealRefusedError('version', name, { version, readable: [FORMAT_VERSION] })
  const [feature] = payload.requires ?? []
  if (feature !== undefined) throw new SealRefusedError('version', name, { feature, readable: [FORMAT_VERSION] })
  if (payload.setId !== setId) throw new SignatureRefusedError(name, 'set')
  if (!payload.signing.some((key) => key.publicKey === publicKey) || payload.dataKeys.length === 0) {
    throw new SignatureRefusedError(name, 'shape')
  }
  return payload
}

function wrapContext(setId: string, purpose: string): string {
  return `tidemark wrap ${setId} ${purpose}`
}
