/** Seals the file list as it grows, in parts of about 16 MiB, so that it is never held whole. */
import { createHash } from 'node:crypto'
import { FRAME_BYTES, type Keyring, type SuiteName, sealBytes } from '@tidemark/crypto'
import type { SealedObject } from '../records/documents.ts'
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

  constructor(options: FileListWriterOptions) {
    this.#options = options
  }

  add(entry: FileEntry): void {
    const bytes = encodeFileEntry(entry)
    this.#entries.push(bytes)
    this.#entryBytes += bytes.length
  }

  /** Stores a part when enough has come; call it now and then while adding. */
  async flushFullPart(): Promise<void> {
    if (this.#entryBytes >= PART_BYTES) await this.#storePart()
  }

  /** The parts in order; at least one. */
  async finish(): Promise<SealedObject[]> {
    if (this.#entryBytes > 0 || this.#parts.length === 0) await this.#storePart()
    return this.#parts
  }

  async #storePart(): Promise<void> {
    const plaintext = Buffer.concat(this.#entries)
    this.#entries = []
    this.#entryBytes = 0
    const { backupId, keyring, suite, store } = this.#options
    const ordinal = this.#parts.length + 1
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
