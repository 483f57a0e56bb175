/** A pack as it is held while its frames are read: whole, or, where it is large, in parts of whole frames. */
import { createHash } from 'node:crypto'
import { HEADER_BYTES, type Keyring } from '@tidemark/crypto'
import { MiB } from '@tidemark/kernel'
import {
  BackupIncompleteError,
  ClusterLayout,
  type CommitRecord,
  PACK_TAIL_BYTES,
  type PackEntry,
  PackIndex,
  type Repository,
} from '@tidemark/repository'
import { checkPack, readRange } from '../restore/fetch-pack.ts'
import type { Rereads } from '../restore/rereads.ts'

/** A pack of 16 MiB with its last frame and table is held whole. */
const WHOLE_BYTES = 18 * MiB
const PART_BYTES = 16 * MiB

export interface PackPart {
  /** Frames from..to−1. */
  readonly from: number
  readonly to: number
  readonly offset: number
  readonly length: number
  /** Hex, of these bytes. */
  readonly sha256: string
}

export interface PackParts {
  readonly place: ConstructorParameters<typeof PackIndex>[2]
  /** For errors. */
  readonly what: string
  /** Undefined where it is held whole: the pack's own beginning and end do. */
  readonly ends: { readonly header: Buffer; readonly tail: Buffer } | undefined
  readonly parts: readonly PackPart[]
}

/** Where a pack lies, and how its parts are read and checked. */
export class PackSource {
  readonly #repository: Repository
  readonly #record: CommitRecord
  readonly #keyring: Keyring
  readonly #rereads: Rereads
  readonly #signal: AbortSignal

  constructor(repository: Repository, record: CommitRecord, keyring: Keyring, rereads: Rereads, signal: AbortSignal) {
    this.#repository = repository
    this.#record = record
    this.#keyring = keyring
    this.#rereads = rereads
    this.#signal = signal
  }

  /** A pack that is held whole; undefined for a large one. */
  whole(entry: PackEntry): PackParts | undefined {
    if (entry.bytes > WHOLE_BYTES) return undefined
    const part = { from: 0, to: Infinity, offset: 0, length: entry.bytes, sha256: entry.sha256 }
    return { ...this.#facts(entry), ends: undefined, parts: [part] }
  }

  /**
   * Divides a large pack. All of it is read for that, a part at a time: its SHA-256 is compared, and those of its parts are noted, so that
   * each is what it was when it is read again. One part is held at most.
   *
   * @throws {BackupIncompleteError} @throws {SealRefusedError}
   */
  async divide(entry: PackEntry): Promise<PackParts> {
    const { place, what } = this.#facts(entry)
    return await this.#again(async () => {
      const header = await this.#range(entry, { offset: 0, length: HEADER_BYTES })
      const tail = await this.#range(entry, { offset: entry.bytes - PACK_TAIL_BYTES, length: PACK_TAIL_BYTES })
      const bounds = boundsOf(new PackIndex(header, tail, place, this.#keyring.dataKey, what), entry.bytes)
      const ends = bounds.map(({ offset, length }) => offset + length)
      const { backupId } = this.#record
      const digests = await checkPack(this.#repository, this.#nameOf(entry), entry, backupId, this.#signal, ends)
      const parts = bounds.map((bound, i) => ({ ...bound, sha256: digests[i] ?? '' }))
      return { place, what, ends: { header, tail }, parts }
    })
  }

  /** @throws {BackupIncompleteError} these are other bytes than it was divided by. */
  async read(entry: PackEntry, { offset, length, sha256 }: PackPart): Promise<Buffer> {
    return await this.#again(async () => {
      const bytes = await this.#range(entry, { offset, length })
      if (createHash('sha256').update(bytes).digest('hex') === sha256) return bytes
      const what = `${entry.name} in ${this.#repository.name}: its SHA-256 is not the recorded one`
      throw new BackupIncompleteError(this.#record.backupId, what)
    })
  }

  #range(entry: PackEntry, range: { offset: number; length: number }): Promise<Buffer> {
    return readRange(this.#repository, this.#nameOf(entry), entry, range, this.#record.backupId, this.#signal)
  }

  #again<T>(read: () => Promise<T>): Promise<T> {
    return this.#rereads.once(this.#repository, this.#signal, read)
  }

  #facts({ name, bytes, salt, backup }: PackEntry): Pick<PackParts, 'place' | 'what'> {
    const backupId = backup ?? this.#record.backupId
    const place = { backupId, ordinal: Number(name.slice('pack-'.length)), bytes, salt }
    return { place, what: `${name} of backup ${backupId} in ${this.#repository.name}` }
  }

  #nameOf({ name, backup }: PackEntry): string {
    const { cluster, systemId, backupId } = this.#record
    return new ClusterLayout(cluster, systemId).base(backup ?? backupId) + name
  }
}

/** Parts one after the other that have every byte of the pack: the first one its header, the last one its frame table. */
function boundsOf(index: PackIndex, bytes: number): Omit<PackPart, 'sha256'>[] {
  const bounds: Omit<PackPart, 'sha256'>[] = []
  let [from, offset] = [0, 0]
  for (let frame = 1; frame <= index.frames; frame += 1) {
    const last = frame === index.frames
    if (!last && index.offset(frame + 1) - offset <= PART_BYTES) continue
    const end = last ? bytes : index.offset(frame)
    bounds.push({ from, to: frame, offset, length: end - offset })
    ;[from, offset] = [frame, end]
  }
  return bounds
}
