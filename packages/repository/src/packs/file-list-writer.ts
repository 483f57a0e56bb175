/** Seals the file list as it grows, in parts of about 16 MiB, so that it is never held whole. */
import { createHash } from 'node:crypto'
import { FRAME_BYTES, type Keyring, type SuiteName, sealBytes } from '@tidemark/crypto'
import type { SealedObject } from '../records/pack-table.ts'
import { fileListName } from '../layout.ts'
import { type FileEntry, encodeFileEntry } from './file-list.ts'

const PART_BYTES = 16 * FRAME_BYTES

export interface FileListWriterOptions {
  readonly backupId: string
  readonly keyring: Keyring
  readonly suite: SuiteName
  readonly store: (name: string, bytes: Uint8Array, sha256: string) => Promise<void>
}

export class FileListWriter {
  readonly #options: FileListWriterOptions
  readonly #parts: SealedObject[] = []
  #entries: Buffer[] = []
  #entryBytes = 0
  #ordinals = 0
  /** Parts are stored one after the other: the list is in the order of its parts. */
  #stored: Promise<void> = Promise.resolve()

  constructor(options: FileListWriterOptions) {
    this.#options = options
  }

  add(entry: FileEntry): void {
    const bytes = encodeFileEntry(entry)
    this.#entries.push(bytes)
    this.#entryBytes += bytes.length
  }

  /**
   * Stores a part when enough has come; call it now and then while adding. Who does not wait for the promise
   * holds more in memory, and learns of its failure from the next call, or from `finish`.
   */
  flushFullPart(): Promise<void> | undefined {
    return this.#entryBytes < PART_BYTES ? undefined : this.#beginPart()
  }

  /** The parts in order; at least one. */
  async finish(): Promise<SealedObject[]> {
    if (this.#entryBytes > 0 || this.#ordinals === 0) void this.#beginPart()
    await this.#stored
    return this.#parts
  }

  #beginPart(): Promise<void> {
    const plaintext = Buffer.concat(this.#entries)
    this.#entries = []
    this.#entryBytes = 0
    this.#ordinals += 1
    const ordinal = this.#ordinals
    const stored = this.#stored.then(() => this.#storePart(ordinal, plaintext))
    stored.catch(() => {})
    this.#stored = stored
    return stored
  }

  async #storePart(ordinal: number, plaintext: Buffer): Promise<void> {
    const { backupId, keyring, suite, store } = this.#options
    const bytes = sealBytes(plaintext, {
      suite,
      dataKey: keyring.writeKey,
      identity: { kind: 'file-list', backupId, ordinal },
      compressionLevel: 3,
    })
    const sha256 = createHash('sha256').update(bytes).digest('hex')
    const name = fileListName(ordinal)
    await store(name, bytes, sha256)
    this.#parts.push({ name, bytes: bytes.length, sha256, salt: bytes.toString('hex', 32, 64) })
  }
}
