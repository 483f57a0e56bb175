import type { Lsn } from '@tidemark/kernel'
import type { TarEntry } from './tar-reader.ts'

export interface BackupTablespace {
  readonly oid: number
  /** Absolute path on the server. */
  readonly location: string
  /** The server's estimate, in bytes. */
  readonly sizeBytes: number
}

export interface BaseBackupStart {
  readonly startLsn: Lsn
  readonly timeline: number
  /** Without the data directory itself. */
  readonly tablespaces: readonly BackupTablespace[]
  /** The server's estimate of everything, tablespaces included. */
  readonly totalBytes: number
}

/** `path` is relative to the data directory; a tablespace's files lie under `pg_tblspc/<oid>/`. */
export type BackupFile = TarEntry

/**
 * Receives the backup, in order. Every callback may return a promise: until it settles nothing more
 * is read from the server (the socket is paused), and a rejection ends the backup with that error.
 *
 * Ownership of chunks: a chunk is a view into a receive buffer that is used again. It may be read
 * until the callback returns, or, if it returned a promise, until that promise settles. Copy what
 * must live longer; never transfer it to a worker.
 */
export interface BaseBackupSink {
  onStart(start: BaseBackupStart): void | Promise<void>
  onFile(file: BackupFile): void | Promise<void>
  onFileChunk(chunk: Buffer): void | Promise<void>
  /** For every `type: 'file'`, empty ones too; not for directories and links. */
  onFileEnd(): void | Promise<void>
  /** The backup_manifest, after all files. */
  onManifestChunk(chunk: Buffer): void | Promise<void>
  /** About once per MiB; the total may be exceeded or not reached, as it is an estimate. */
  onProgress?(bytesDone: number, bytesTotal: number): void
}

export interface ServerNotice {
  readonly severity: string
  readonly sqlState: string
  readonly message: string
}

export interface BaseBackupEnd {
  /** `damaged`: everything was received, and the server found page checksum failures in it. */
  readonly kind: 'complete' | 'damaged'
  readonly startLsn: Lsn
  readonly stopLsn: Lsn
  readonly timeline: number
  /** File contents received, without tar framing. */
  readonly fileBytes: number
  readonly files: number
  readonly manifestBytes: number
  /** Links and special files (sockets, pipes, devices) that the server left out, with what it said of each; at most 1,000 of them. */
  readonly skipped: readonly { readonly path: string; readonly reason: string }[]
  /** All of them. */
  readonly skippedCount: number
  /** What the server warned of, at most 1,000; for a damaged backup they name files and blocks. */
  readonly notices: readonly ServerNotice[]
  /** Present exactly when damaged. */
  readonly checksumFailure?: ServerNotice
}
