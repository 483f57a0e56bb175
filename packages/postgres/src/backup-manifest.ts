import { parseLsn, type Lsn } from '@tidemark/kernel'
import { createHash, type Hash } from 'node:crypto'
import { PostgresFileInvalidError } from './errors.ts'

/**
 * backup_manifest, read as it streams by (src/backend/backup/backup_manifest.c).
 *
 * The file is JSON, but a cluster with millions of relations makes one that no JavaScript string can
 * hold. PostgreSQL writes one file or WAL range a line, and its last line carries the SHA-256 of all
 * bytes before that line; only this form is read, and only the line is ever in memory.
 */
export interface ManifestFile {
  /** Relative to the data directory, tablespaces as `pg_tblspc/<oid>/…`. Lossy where pathBytes is given. */
  readonly path: string
  /** Only for names that are not UTF-8 (Encoded-Path in the file). */
  readonly pathBytes?: Buffer
  readonly size: number
  /** Seconds since 1970. */
  readonly mtime: number
  readonly checksumAlgorithm?: string
  /** Lower-case hex. */
  readonly checksum?: string
}

export interface ManifestWalRange {
  readonly timeline: number
  readonly startLsn: Lsn
  readonly endLsn: Lsn
}

export interface ManifestSummary {
  readonly version: number
  /** Since PostgreSQL 17 (manifest version 2). */
  readonly systemId?: string
  readonly files: number
  readonly walRanges: readonly ManifestWalRange[]
}

const maxLineBytes = 64 * 1024

/** Feed `write` with the manifest's bytes, then call `end`: only then is it proven to be whole. */
export class ManifestParser {
  readonly #onFile: (file: ManifestFile) => void
  readonly #hash: Hash = createHash('sha256')
  readonly #walRanges: ManifestWalRange[] = []
  #rest: Buffer = Buffer.alloc(0)
  #version: number | undefined
  #systemId: string | undefined
  #files = 0
  #checksum: string | undefined
  #checksumMatches = false

  constructor(onFile: (file: ManifestFile) => void) {
    this.#onFile = onFile
  }

  /** Copies what it needs; `chunk` may be reused. @throws {PostgresFileInvalidError} */
  write(chunk: Buffer): void {
    let from = 0
    for (;;) {
      const newline = chunk.indexOf(0x0a, from)
      if (newline === -1) break
      this.#takeLine(this.#joined(chunk.subarray(from, newline + 1)))
      from = newline + 1
    }
    this.#rest = Buffer.from(this.#joined(chunk.subarray(from)))
    if (this.#rest.length > maxLineBytes) throw invalid('a line is too long')
  }

  /** @throws {PostgresFileInvalidError} cut short, or the manifest's own checksum does not match. */
  end(): ManifestSummary {
    if (this.#rest.length > 0 || this.#checksum === undefined) throw invalid('it is cut short')
    if (!this.#checksumMatches) throw invalid('its own checksum does not match')
    if (this.#version === undefined) throw invalid('it has no version')
    return {
      version: this.#version,
      ...(this.#systemId === undefined ? {} : { systemId: this.#systemId }),
      files: this.#files,
      walRanges: this.#walRanges,
    }
  }

  #joined(tail: Buffer): Buffer {
    if (this.#rest.length === 0) return tail
    const joined = Buffer.concat([this.#rest, tail])
    this.#rest = Buffer.alloc(0)
    return joined
  }

  #takeLine(line: Buffer): void {
    if (this.#checksum !== undefined) throw invalid('it goes on after its checksum')
    const text = line.toString('utf8').trim()
    const checksum = /^"Manifest-Checksum": "([0-9a-f]{64})"\}$/.exec(text)?.[1]
    if (checksum !== undefined) {
      this.#checksum = checksum
      this.#checksumMatches = this.#hash.digest('hex') === checksum
      return
    }
    this.#hash.update(line)
    const version = /^\{ "PostgreSQL-Backup-Manifest-Version": (\d+),$/.exec(text)?.[1]
    const systemId = /^"System-Identifier": (\d+),$/.exec(text)?.[1]
    // Objects stand one on a line; "Files" and "WAL-Ranges" open on a line of their own, "]," closes.
    if (version !== undefined) this.#version = Number(version)
    else if (systemId !== undefined) this.#systemId = systemId
    else if (text.startsWith('{')) this.#takeObject(parseObject(text.replace(/\}[\],]*$/, '}')))
    else if (!/^("Files": \[|"WAL-Ranges": \[|\],?)?$/.test(text)) throw invalid('a line is not understood', { text })
  }

  #takeObject(object: Record<string, unknown>): void {
    if ('Timeline' in object) {
      this.#walRanges.push({
        timeline: need(object, 'Timeline', 'number'),
        startLsn: parseLsn(need(object, 'Start-LSN', 'string')),
        endLsn: parseLsn(need(object, 'End-LSN', 'string')),
      })
      return
    }
    const encoded = object['Encoded-Path']
    const pathBytes = typeof encoded === 'string' ? Buffer.from(encoded, 'hex') : undefined
    const mtime = Date.parse(need(object, 'Last-Modified', 'string').replace(' GMT', 'Z').replace(' ', 'T'))
    if (Number.isNaN(mtime)) throw invalid('a modification time is not readable', { path: object['Path'] })
    this.#files += 1
    this.#onFile({
      path: pathBytes?.toString('utf8') ?? need(object, 'Path', 'string'),
      ...(pathBytes === undefined ? {} : { pathBytes }),
      size: need(object, 'Size', 'number'),
      mtime: mtime / 1000,
      ...('Checksum' in object
        ? {
            checksumAlgorithm: need(object, 'Checksum-Algorithm', 'string'),
            checksum: need(object, 'Checksum', 'string'),
          }
        : {}),
    })
  }
}

/** For a manifest at hand as a stream or a list of chunks. */
export async function readBackupManifest(
  chunks: AsyncIterable<Buffer> | Iterable<Buffer>,
  onFile: (file: ManifestFile) => void,
): Promise<ManifestSummary> {
  const parser = new ManifestParser(onFile)
  for await (const chunk of chunks) parser.write(chunk)
  return parser.end()
}

function parseObject(text: string): Record<string, unknown> {
  try {
    return JSON.parse(text) as Record<string, unknown>
  } catch {
    throw invalid('a line is not JSON', { text: text.slice(0, 200) })
  }
}

function need(object: Record<string, unknown>, key: string, type: 'string'): string
function need(object: Record<string, unknown>, key: string, type: 'number'): number
function need(object: Record<string, unknown>, key: string, type: 'string' | 'number'): unknown {
  const value = object[key]
  if (typeof value !== type) throw invalid(`${key} is missing or of the wrong type`, { path: object['Path'] })
  return value
}

function invalid(problem: string, facts: Record<string, unknown> = {}): PostgresFileInvalidError {
  return new PostgresFileInvalidError('backup_manifest', problem, facts)
}
