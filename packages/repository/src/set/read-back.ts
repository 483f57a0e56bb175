/** Proof that a store holds what it was given: read in pieces, so that it costs no second buffer of a pack. */
import { createHash } from 'node:crypto'
import { freeBuffer, pageAligned } from '@tidemark/kernel'
import { type ObjectStore, ObjectTooLargeError } from '@tidemark/storage'
import { StoredOtherwiseError } from '../errors.ts'
import type { RepositoryPlace } from './repository.ts'

const PIECE_BYTES = 4 * 1024 * 1024
/** Where the store itself checks at ingest, one object in so many is read back all the same. */
const SAMPLE = 32

/** All objects of a store that is not known to check checksums, a sample elsewhere. */
export function isToBeReadBack(place: RepositoryPlace): boolean {
  return place.capabilities?.checksumAtIngest !== true || Math.random() * SAMPLE < 1
}

/** An object's bytes in pieces, each valid until the next is asked for. @param bytes reads no further than that. */
export async function* readPieces(
  store: ObjectStore,
  name: string,
  bytes: number,
  signal: AbortSignal,
): AsyncGenerator<Buffer> {
  // What was written a moment ago is in this host's cache, which proves nothing of the disk.
  const into = pageAligned(Math.min(bytes, PIECE_BYTES + 1))
  let offset = 0
  while (offset < bytes) {
    // A byte more in the last piece is no further request.
    const left = bytes - offset
    const range = { offset, length: left <= PIECE_BYTES + 1 ? left : PIECE_BYTES }
    const piece = await store.get(name, { signal, range, into, maxBytes: range.length, uncached: true })
    if (piece.length === 0) break
    yield piece
    offset += piece.length
    if (piece.length < range.length) break
  }
  freeBuffer(into)
}

/** @throws {StoredOtherwiseError} the stored bytes are not those of this SHA-256, or there are more of them. */
export async function readBack(
  place: RepositoryPlace,
  name: string,
  bytes: number,
  sha256: string,
  signal: AbortSignal,
): Promise<void> {
  const hash = createHash('sha256')
  let read = 0
  for await (const piece of readPieces(place.store, name, bytes + 1, signal)) {
    hash.update(piece)
    read += piece.length
  }
  if (read !== bytes || hash.digest('hex') !== sha256) throw new StoredOtherwiseError(place.name, name)
}

/** Whether an object holds exactly these bytes. @throws {ObjectNotFoundError} */
export async function holdsBytes(
  store: ObjectStore,
  name: string,
  bytes: Uint8Array,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    return (await store.get(name, { signal, maxBytes: bytes.length })).equals(bytes)
  } catch (error) {
    if (error instanceof ObjectTooLargeError) return false
    throw error
  }
}

/** Stores an object and proves that it is there: by the store's own check at ingest, or by reading it back. */
export async function putProven(
  place: RepositoryPlace,
  name: string,
  bytes: Uint8Array,
  sha256: string,
  signal: AbortSignal,
): Promise<void> {
  await place.store.put(name, bytes, { signal, sha256 })
  if (isToBeReadBack(place)) await readBack(place, name, bytes.length, sha256, signal)
}
