/** Holds every file of a backup against the manifest that PostgreSQL sent with it. */
import { ManifestParser } from '@tidemark/postgres'
import type { Keyring } from '@tidemark/crypto'
import { type Logger, type ReportProgress, throwIfAborted } from '@tidemark/kernel'
import { type CommitRecord, type FileEntry, type PackTable, type Repository, readFileList } from '@tidemark/repository'
import { FileHash } from './file-hash.ts'
import { FrameSource } from './frame-source.ts'

const MANIFEST = 'backup_manifest'
const FRAMES_AHEAD = 6
/** Sent with the backup but left out of PostgreSQL's manifest. */
const NOT_IN_MANIFEST = new Set([MANIFEST])

export interface VerifyFilesDeps {
  readonly keyring: Keyring
  readonly threads: number
  readonly logger: Logger
  readonly signal: AbortSignal
  readonly progress: ReportProgress
}

/**
 * Opens every frame and hashes every file; reports each that is not as the manifest says, is missing, or is in no manifest.
 *
 * @returns the number of files that were compared.
 */
export async function verifyFiles(
  repository: Repository,
  record: CommitRecord,
  table: PackTable,
  deps: VerifyFilesDeps,
  report: (problem: string) => void,
): Promise<number> {
  await using frames = new FrameSource(repository, record, table, deps)
  const found = new Map<string, { size: number; sha256: string }>()
  const manifest = new ManifestCheck(found, report)
  let bytesDone = 0
  for await (const { entry, pieces } of filesAhead(repository, record, table, frames, deps)) {
    throwIfAborted(deps.signal, 'the verification')
    const hash = new FileHash()
    for (const [i, extent] of entry.extents.entries()) {
      const plaintext = (await pieces[i]?.()) ?? new Uint8Array(0)
      const piece = plaintext.subarray(extent.frameOffset, extent.frameOffset + extent.length)
      if (piece.length !== extent.length)
        report(`${entry.path}: frame ${extent.frame} is shorter than the file list says`)
      hash.add(extent.fileOffset, piece)
      if (entry.path === MANIFEST) manifest.write(piece)
      bytesDone += piece.length
    }
    found.set(entry.path, { size: entry.size, sha256: hash.end(entry.size) })
    deps.progress({
      phase: `contents of ${repository.name}`,
      bytesDone,
      bytesTotal: record.totals.bytes,
      files: found.size,
    })
  }
  manifest.end()
  await frames.finish()
  return found.size
}

interface FileAhead {
  readonly entry: FileEntry
  readonly pieces: readonly (() => Promise<Uint8Array>)[]
}

/** Files in order; while one is hashed, the frames of those behind it are on their way. */
async function* filesAhead(
  repository: Repository,
  record: CommitRecord,
  table: PackTable,
  frames: FrameSource,
  deps: VerifyFilesDeps,
): AsyncGenerator<FileAhead> {
  for await (const entry of readFileList(repository, record, table, deps.keyring.dataKey, deps.signal)) {
    if (entry.type !== 'file') continue
    const pieces = entry.extents.map((extent, i) => () => {
      for (const next of entry.extents.slice(i + 1, i + FRAMES_AHEAD)) void frames.frame(next.pack, next.frame)
      return frames.frame(extent.pack, extent.frame)
    })
    yield { entry, pieces }
  }
}

class ManifestCheck {
  readonly #parser: ManifestParser
  readonly #report: (problem: string) => void
  readonly #found: ReadonlyMap<string, { size: number; sha256: string }>
  readonly #listed = new Set<string>()

  constructor(found: ReadonlyMap<string, { size: number; sha256: string }>, report: (problem: string) => void) {
    this.#found = found
    this.#report = report
    this.#parser = new ManifestParser((file) => {
      const path = (file.pathBytes ?? Buffer.from(file.path)).toString('latin1')
      this.#listed.add(path)
      this.#compare(path, file.size, file.checksumAlgorithm, file.checksum)
    })
  }

  /** The manifest is the last file: everything it speaks of has been hashed. */
  write(piece: Uint8Array): void {
    this.#parser.write(Buffer.from(piece.buffer, piece.byteOffset, piece.byteLength))
  }

  end(): void {
    this.#parser.end()
    for (const path of this.#found.keys()) {
      if (!this.#listed.has(path) && !NOT_IN_MANIFEST.has(path))
        this.#report(`${path} is in the backup but not in PostgreSQL's manifest`)
    }
  }

  #compare(path: string, size: number, algorithm: string | undefined, checksum: string | undefined): void {
    const file = this.#found.get(path)
    if (file === undefined) return this.#report(`${path} is in PostgreSQL's manifest but not in the backup`)
    if (file.size !== size) return this.#report(`${path} has ${file.size} bytes, PostgreSQL's manifest says ${size}`)
    if (algorithm !== 'SHA256') return this.#report(`${path} has no SHA-256 in PostgreSQL's manifest`)
    if (file.sha256 !== checksum) this.#report(`${path} does not have the SHA-256 of PostgreSQL's manifest`)
  }
}
