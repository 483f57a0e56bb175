/**
 * Holds every file of a backup against the manifest that PostgreSQL sent with it.
 *
 * Digests of files and the manifest's own meet in a temporary file: neither side is held, however many files there are.
 */
import { join } from 'node:path'
import { ManifestParser } from '@tidemark/postgres'
import type { Keyring } from '@tidemark/crypto'
import { type ReportProgress, throwIfAborted } from '@tidemark/kernel'
import { type CommitRecord, type FileEntry, type PackTable, type Repository, readFileList } from '@tidemark/repository'
import type { Rereads } from '../restore/rereads.ts'
import { SpooledJoin } from '../spool/spooled-join.ts'
import { FileHash } from './file-hash.ts'
import { FrameSource } from './frame-source.ts'
import { ScratchFolder } from './scratch-folder.ts'

const MANIFEST = 'backup_manifest'
const FRAMES_AHEAD = 6

export interface VerifyFilesDeps {
  readonly keyring: Keyring
  readonly threads: number
  readonly rereads: Rereads
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
  await using scratch = await ScratchFolder.create('verify')
  await using comparison = new SpooledJoin(join(scratch.path, 'files'))
  const manifest = new ManifestSide(comparison)
  let bytesDone = 0
  let files = 0
  for await (const { entry, pieces } of filesAhead(repository, record, table, frames, deps)) {
    throwIfAborted(deps.signal, 'the verification')
    const hash = new FileHash()
    for (const [i, extent] of entry.extents.entries()) {
      const plaintext = (await pieces[i]?.()) ?? new Uint8Array(0)
      const piece = plaintext.subarray(extent.frameOffset, extent.frameOffset + extent.length)
      if (piece.length !== extent.length)
        report(`${entry.path}: frame ${extent.frame} is shorter than the file list says`)
      hash.add(extent.fileOffset, piece)
      if (entry.path === MANIFEST) await manifest.write(piece)
      bytesDone += piece.length
    }
    files += 1
    const sha256 = hash.end(entry.size)
    // The manifest does not speak of itself.
    if (entry.path !== MANIFEST) await comparison.add('left', entry.path, `${entry.size} SHA256 ${sha256}`)
    deps.progress({
      phase: `contents of ${repository.name}`,
      bytesDone,
      bytesTotal: record.totals.bytes,
      files,
    })
  }
  await manifest.end()
  await frames.finish()
  for await (const { key, left, right } of comparison.differences()) report(describe(key, left, right))
  return files
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
  const read = (): AsyncIterable<FileEntry> =>
    readFileList(repository, record, table, deps.keyring.dataKey, deps.signal)
  for await (const entry of deps.rereads.onceFromStart(repository, deps.signal, read)) {
    if (entry.type !== 'file') continue
    const pieces = entry.extents.map((extent, i) => () => {
      for (const next of entry.extents.slice(i + 1, i + FRAMES_AHEAD)) frames.ahead(next.pack, next.frame)
      return frames.frame(extent.pack, extent.frame)
    })
    yield { entry, pieces }
  }
}

/** What the manifest says of each file, as it comes by. */
class ManifestSide {
  readonly #comparison: SpooledJoin
  readonly #parser: ManifestParser
  #parsed: [path: string, facts: string][] = []

  constructor(comparison: SpooledJoin) {
    this.#comparison = comparison
    this.#parser = new ManifestParser(({ pathBytes, path, size, checksumAlgorithm, checksum }) => {
      const bytes = (pathBytes ?? Buffer.from(path)).toString('latin1')
      this.#parsed.push([bytes, `${size} ${checksumAlgorithm ?? 'none'} ${checksum ?? ''}`])
    })
  }

  async write(piece: Uint8Array): Promise<void> {
    this.#parser.write(Buffer.from(piece.buffer, piece.byteOffset, piece.byteLength))
    await this.#takeParsed()
  }

  async end(): Promise<void> {
    this.#parser.end()
    await this.#takeParsed()
  }

  async #takeParsed(): Promise<void> {
    for (const [path, facts] of this.#parsed) await this.#comparison.add('right', path, facts)
    this.#parsed = []
  }
}

function describe(path: string, found: string | undefined, listed: string | undefined): string {
  if (found === undefined) return `${path} is in PostgreSQL's manifest but not in the backup`
  if (listed === undefined) return `${path} is in the backup but not in PostgreSQL's manifest`
  const [size] = found.split(' ')
  const [listedSize, algorithm] = listed.split(' ')
  if (size !== listedSize) return `${path} has ${size} bytes, PostgreSQL's manifest says ${listedSize}`
  if (algorithm !== 'SHA256') return `${path} has no SHA-256 in PostgreSQL's manifest`
  return `${path} does not have the SHA-256 of PostgreSQL's manifest`
}
