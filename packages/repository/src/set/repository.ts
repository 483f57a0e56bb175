/** One repository: a store with the right marker in it. */
import { randomBytes } from 'node:crypto'
import {
  FORMAT_VERSION,
  type KeyEncryptionKey,
  KeyMissingError,
  type Keyring,
  SignatureRefusedError,
  createKeyring,
  openKeyring,
  openSignedDocument,
} from '@tidemark/crypto'
import { type Clock, type Logger, randomId } from '@tidemark/kernel'
import { ObjectNotFoundError, type ObjectStore, type StoreCapabilities } from '@tidemark/storage'
import { NotARepositoryError, RepositoryExistsError, RepositoryTwiceError, SetMismatchError } from '../errors.ts'
import { KEYS, MARKER, SCRATCH, keyringName, keyringNumber } from '../layout.ts'
import { MAX_BYTES } from '../records/bounds.ts'
import { type Marker, markerSchema, parseJsonDocument } from '../records/documents.ts'

/** A configured place: its name, its store, and whether a backup may succeed without it. */
export interface RepositoryPlace {
  readonly name: string
  readonly store: ObjectStore
  readonly required: boolean
  /** What `probe` found; absent where nobody asked, and then nothing is taken for granted. */
  readonly capabilities?: StoreCapabilities
}

export interface Repository extends RepositoryPlace {
  readonly marker: Marker
}

/** Keys as stored: documents to be copied verbatim, and the newest one's name for the record. */
export interface StoredKeyring {
  readonly name: string
  readonly bytes: Buffer
}

export interface RepositorySet {
  readonly setId: string
  /** base64; what signed documents are held against. */
  readonly publicKey: string
  readonly repositories: readonly Repository[]
}

/** Reads a repository's marker. @throws {NotARepositoryError} @throws {FormatVersionError} @throws {DocumentDamagedError} */
async function openRepository(place: RepositoryPlace, signal: AbortSignal): Promise<Repository> {
  let bytes: Buffer
  try {
    bytes = await place.store.get(MARKER, { signal, maxBytes: MAX_BYTES.marker })
  } catch (error) {
    if (error instanceof ObjectNotFoundError) throw new NotARepositoryError(place.store.url)
    throw error
  }
  return { ...place, marker: parseJsonDocument(markerSchema, bytes, `${place.store.url} ${MARKER}`) }
}

/**
 * Repositories that belong together, without any key.
 *
 * @param pinned base64 public key from the configuration or a recovery kit; undefined trusts the markers, which must agree.
 * @throws {SetMismatchError}
 */
export async function openRepositorySet(
  places: readonly RepositoryPlace[],
  pinned: string | undefined,
  signal: AbortSignal,
): Promise<RepositorySet> {
  const repositories = await Promise.all(places.map((place) => openRepository(place, signal)))
  return makeSet(repositories, pinned)
}

function makeSet(repositories: readonly Repository[], pinned: string | undefined): RepositorySet {
  const [first] = repositories
  if (first === undefined) throw new RangeError('a repository set has at least one repository')
  const { setId } = first.marker
  const publicKey = pinned ?? first.marker.publicKey
  const same = repositories.every(({ marker }) => marker.setId === setId && marker.publicKey === publicKey)
  if (!same) {
    throw new SetMismatchError(
      repositories.map(({ name, marker }) => ({ repository: name, setId: marker.setId, publicKey: marker.publicKey })),
    )
  }
  const ids = new Set(repositories.map(({ marker }) => marker.repositoryId))
  if (ids.size < repositories.length) throw new RepositoryTwiceError(repositories.map(({ name }) => name))
  return { setId, publicKey, repositories }
}

/**
 * All keyring documents of a repository, oldest number first. Whatever else lies in the folder is not ours; one that is too large to be a
 * keyring is given without its bytes, and so is refused by whoever opens it.
 */
export async function readKeyrings({ store }: Repository, signal: AbortSignal): Promise<StoredKeyring[]> {
  const keyrings: StoredKeyring[] = []
  for await (const { name, size } of store.list(KEYS, { signal })) {
    if (keyringNumber(name) === undefined) continue
    const { keyring: maxBytes } = MAX_BYTES
    keyrings.push({ name, bytes: size > maxBytes ? Buffer.alloc(0) : await store.get(name, { signal, maxBytes }) })
  }
  return keyrings.toSorted(byNumber)
}

function byNumber(a: StoredKeyring, b: StoredKeyring): number {
  return (keyringNumber(a.name) ?? 0) - (keyringNumber(b.name) ?? 0)
}

interface SetKeyrings {
  /** Lowest number first. */
  readonly documents: readonly StoredKeyring[]
  /** Names of objects that are no keyring of this set: whoever can put an object must not be able to lock it. */
  readonly passedOver: readonly string[]
}

/**
 * The keyrings of a set: all that are signed and lie under their own number, in whichever repository; of two with one name
 * but other bytes, both. Where none is right, what was found instead, so that opening it says what is wrong.
 *
 * @throws what the repositories threw, when none of them gave any.
 */
async function readSetKeyrings(set: RepositorySet, signal: AbortSignal): Promise<SetKeyrings> {
  const documents = new Map<string, StoredKeyring>()
  const refused: StoredKeyring[] = []
  let unread: unknown
  for (const repository of set.repositories) {
    try {
      for (const { name, bytes } of await readKeyrings(repository, signal)) {
        if (isOwnKeyring(name, bytes, set.publicKey))
          documents.set(`${name} ${bytes.toString('latin1')}`, { name, bytes })
        else refused.push({ name, bytes })
      }
    } catch (error) {
      if (signal.aborted) throw error
      unread ??= error
    }
  }
  if (documents.size === 0 && refused.length === 0 && unread !== undefined) throw unread
  const found = documents.size === 0 ? refused : [...documents.values()]
  return { documents: found.toSorted(byNumber), passedOver: [...new Set(refused.map(({ name }) => name))] }
}

/** Whether it is signed by the set's key and lies under its own number. */
export function isOwnKeyring(name: string, bytes: Buffer, publicKey: string): boolean {
  try {
    const { number } = openSignedDocument(bytes, publicKey, name) as { number?: unknown }
    return number === keyringNumber(name)
  } catch (error) {
    if (error instanceof SignatureRefusedError) return false
    throw error
  }
}

export interface OpenedKeys {
  readonly keyring: Keyring
  readonly newest: StoredKeyring
  /** Names of objects under keys/ that are no keyrings of this set, or were changed: worth a warning. */
  readonly passedOver: readonly string[]
}

/**
 * The set's keys, from the keyrings of all its repositories that answer.
 *
 * @throws {KeyMissingError} @throws {WrongKeyError}
 * @throws {SignatureRefusedError} no keyring of any repository is right.
 */
export async function openKeys(
  set: RepositorySet,
  keks: readonly KeyEncryptionKey[],
  signal: AbortSignal,
): Promise<OpenedKeys> {
  const { documents, passedOver } = await readSetKeyrings(set, signal)
  const keyring = openKeyring(set.setId, documents, keks, set.publicKey)
  const newest = documents.at(-1)
  if (newest === undefined) throw new RangeError('a keyring without documents')
  return { keyring, newest, passedOver }
}

export interface InitDeps {
  readonly clock: Clock
  readonly logger: Logger
  readonly signal: AbortSignal
}

/**
 * Makes a new set in the given places, or adds empty places to the set that the others already belong to.
 *
 * Keyrings first, the marker last and by conditional put: a crash leaves no half repository that opens.
 *
 * @throws {RepositoryExistsError} a place that is not a repository holds something, or all are repositories already.
 */
export async function initRepositorySet(
  places: readonly RepositoryPlace[],
  keks: readonly KeyEncryptionKey[],
  pinned: string | undefined,
  deps: InitDeps,
): Promise<{ set: RepositorySet; created: readonly { name: string; capabilities: StoreCapabilities }[] }> {
  const { signal } = deps
  const existing: Repository[] = []
  const empty: RepositoryPlace[] = []
  for (const place of places) {
    const found = await firstObject(place.store, signal)
    if (found === undefined) empty.push(place)
    else existing.push(await openExisting(place, found, signal))
  }
  const [target] = existing
  // A new set makes a new key pair, so it cannot have the pinned one: said before anything is written.
  if (target === undefined && pinned !== undefined) {
    throw new SetMismatchError(
      [],
      'a new set makes its own key pair: take the pinned public key out of the configuration, run `tidemark repo init`, and pin the new one; if the set exists already, name one of its repositories too',
    )
  }
  if (empty.length === 0 && target !== undefined) throw new RepositoryExistsError(target.store.url, MARKER)
  const [kek] = keks
  if (target === undefined && kek === undefined) throw new KeyMissingError('making a repository set')
  const keys =
    target === undefined && kek !== undefined
      ? newKeys(kek, deps.clock.now())
      : await keysOf(makeSet(existing, pinned), keks, signal)
  const created: { name: string; capabilities: StoreCapabilities }[] = []
  for (const place of empty) {
    const capabilities = await place.store.probe(signal)
    for (const { name, bytes } of keys.documents) await place.store.putIfAbsent(name, bytes, { signal })
    const marker: Marker = {
      format: 'tidemark-repository',
      version: FORMAT_VERSION,
      setId: keys.setId,
      repositoryId: randomId(),
      createdAt: deps.clock.now().toISOString(),
      publicKey: keys.publicKey,
      requires: [],
    }
    const outcome = await place.store.putIfAbsent(MARKER, Buffer.from(`${JSON.stringify(marker)}\n`), { signal })
    if (outcome === 'exists') throw new RepositoryExistsError(place.store.url, MARKER)
    deps.logger.info({ repository: place.name, url: place.store.url, setId: keys.setId }, 'repository initialised')
    created.push({ name: place.name, capabilities })
  }
  return { set: await openRepositorySet(places, pinned ?? keys.publicKey, signal), created }
}

async function openExisting(place: RepositoryPlace, found: string, signal: AbortSignal): Promise<Repository> {
  try {
    return await openRepository(place, signal)
  } catch (error) {
    if (error instanceof NotARepositoryError) throw new RepositoryExistsError(place.store.url, found)
    throw error
  }
}

interface SetKeys {
  readonly setId: string
  readonly publicKey: string
  readonly documents: readonly StoredKeyring[]
}

function newKeys(kek: KeyEncryptionKey, now: Date): SetKeys {
  const setId = randomId()
  const { document, keyring } = createKeyring(setId, kek, now)
  return {
    setId,
    publicKey: keyring.publicKey,
    documents: [{ name: keyringName(1, randomBytes(4).toString('hex')), bytes: document }],
  }
}

/** What a new place of an existing set gets: the very bytes of its keyrings, opened first. */
async function keysOf(set: RepositorySet, keks: readonly KeyEncryptionKey[], signal: AbortSignal): Promise<SetKeys> {
  const { documents } = await readSetKeyrings(set, signal)
  openKeyring(set.setId, documents, keks, set.publicKey)
  return { setId: set.setId, publicKey: set.publicKey, documents }
}

/** Something that makes a place not empty; what a capability probe left there does not. */
async function firstObject(store: ObjectStore, signal: AbortSignal): Promise<string | undefined> {
  for await (const { name } of store.list('', { signal })) if (!name.startsWith(SCRATCH)) return name
  return undefined
}
