/** Proof that a store holds what it was given: read in pieces, so that it costs no second buffer of a pack. */
import { createHash } from 'node:crypto'
import { freeBuffer } from '@tidemark/kernel'
import { StoredOtherwiseError } from '../errors.ts'
import type { RepositoryPlace } from './repository.ts'

const PIECE_BYTES = 4 * 1024 * 1024
/** Where the store itself checks at ingest, one object in so many is read back all the same. */
const SAMPLE = 32

/** All objects of a store that is not known to check checksums, a sample elsewhere. */
export function isToBeReadBack(place: RepositoryPlace): boolean {
  return place.capabilities?.checksumAtIngest !== true || Math.random() * SAMPLE < 1
}

/** @throws {StoredOtherwiseError} the stored bytes are not those of this SHA-256. */
export async function readBack(
  place: RepositoryPlace,
  name: string,
  bytes: number,
  sha256: string,
  signal: AbortSignal,
): Promise<void> {
  const hash = createHash('sha256')
  let offset = 0
  while (offset < bytes) {
    const piece = await place.store.get(name, {
      signal,
      range: { offset, length: Math.min(PIECE_BYTES, bytes - offset) },
    })
    if (piece.length === 0) break
    hash.update(piece)
    offset += piece.length
    freeBuffer(piece)
  }
  if (offset !== bytes || hash.digest('hex') !== sha256) throw new StoredOtherwiseError(place.name, name)
}
