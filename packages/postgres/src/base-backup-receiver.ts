import { parseLsn, type Lsn } from '@tidemark/kernel'
import type { DatabaseError } from 'pg'
import type { BackupTablespace, BaseBackupEnd, BaseBackupSink, ServerNotice } from './base-backup-sink.ts'
import { StreamMalformedError } from './errors.ts'
import type { ServerMessage } from './exchange.ts'
import { SkippedFiles } from './skipped-files.ts'
import { TarReader, type TarEntry } from './tar-reader.ts'

const maxNotices = 1_000

/**
 * Makes sink calls and a verdict of the messages of one BASE_BACKUP.
 *
 * States: start row → tablespace rows → copy → stop row → verdict.
 */
export class BaseBackupReceiver {
  readonly #sink: BaseBackupSink
  #state: 'start' | 'tablespaces' | 'copy' | 'stop' | 'stopped' | 'complete' = 'start'
  #start: { lsn: Lsn; timeline: number } | undefined
  #stop: { lsn: Lsn; timeline: number } | undefined
  #tablespaces: BackupTablespace[] = []
  #totalBytes = 0
  #tar: TarReader | undefined
  #prefix = ''
  /** Directories that must come before the archive of an in-place tablespace, and what the server may send of them again. */
  #owed: string[] = []
  readonly #made = new Set<string>()
  #inManifest = false
  #fileBytes = 0
  #files = 0
  #manifestBytes = 0
  #notices: ServerNotice[] = []
  readonly #skipped = new SkippedFiles()
  #error: DatabaseError | undefined

  constructor(sink: BaseBackupSink) {
    this.#sink = sink
  }

  take(message: ServerMessage): void | Promise<void> {
    switch (message.kind) {
      case 'copy-data':
        return this.#takeData(message.chunk)
      case 'row':
        return this.#takeRow(message.values)
      case 'copy-start':
        return this.#beginCopy()
      case 'copy-done':
        this.#endArchive()
        this.#state = 'stop'
        return undefined
      case 'complete':
        // After the start row, the tablespace rows and the stop row comes 'SELECT'; the last names the command.
        if (message.tag === 'BASE_BACKUP' && this.#state === 'stopped') this.#state = 'complete'
        else if (this.#state === 'start' && this.#start !== undefined) this.#state = 'tablespaces'
        return undefined
      case 'error':
        this.#error = message.error
        return undefined
      case 'ready':
        return undefined
      default:
        return message satisfies never
    }
  }

  takeNotice(notice: DatabaseError): void {
    if (this.#notices.length < maxNotices) this.#notices.push(noticeOf(notice))
    this.#skipped.warned(notice.message)
  }

  verdict(translate: (error: DatabaseError) => Error): BaseBackupEnd {
    const damaged = this.#error?.code === 'XX001' && this.#state === 'stopped' // data_corrupted
    if (this.#error !== undefined && !damaged) throw translate(this.#error)
    if (!this.#start || !this.#stop || !(damaged || this.#state === 'complete') || this.#manifestBytes === 0) {
      throw new StreamMalformedError('BASE_BACKUP ended early', { state: this.#state })
    }
    return {
      kind: damaged ? 'damaged' : 'complete',
      startLsn: this.#start.lsn,
      stopLsn: this.#stop.lsn,
      timeline: this.#start.timeline,
      fileBytes: this.#fileBytes,
      files: this.#files,
      manifestBytes: this.#manifestBytes,
      skipped: this.#skipped.list,
      skippedCount: this.#skipped.count,
      notices: this.#notices,
      ...(damaged && this.#error ? { checksumFailure: noticeOf(this.#error) } : {}),
    }
  }

  #takeRow(values: readonly (string | null)[]): void {
    const [first, second, third] = values
    if (this.#state === 'tablespaces') {
      // spcoid, spclocation, size in KiB; the data directory has neither oid nor location.
      const sizeBytes = Number(third ?? 0) * 1024
      this.#totalBytes += sizeBytes
      if (first !== null && first !== undefined) {
        this.#tablespaces.push({ oid: Number(first), location: second ?? '', sizeBytes })
        this.#skipped.tablespace(second ?? '', `pg_tblspc/${first}`)
      }
      return
    }
    if (!first || !second) throw new StreamMalformedError('a row without LSN and timeline')
    const position = { lsn: parseLsn(first), timeline: Number(second) }
    if (this.#state === 'start') this.#start = position
    else if (this.#state === 'stop') {
      this.#stop = position
      this.#state = 'stopped'
    } else throw new StreamMalformedError('an unexpected row', { state: this.#state })
  }

  #beginCopy(): void | Promise<void> {
    if (this.#state !== 'tablespaces' || !this.#start) throw new StreamMalformedError('copy before the start row')
    this.#state = 'copy'
    return this.#sink.onStart({
      startLsn: this.#start.lsn,
      timeline: this.#start.timeline,
      tablespaces: this.#tablespaces,
      totalBytes: this.#totalBytes,
    })
  }

  /** One byte says what follows (bbsink_copystream, src/backend/backup/basebackup_copy.c). */
  #takeData(chunk: Buffer): void | Promise<void> {
    switch (chunk[0] ?? 0) {
      case 0x64: // d: archive or manifest bytes
        if (!this.#inManifest) return this.#archive().write(chunk.subarray(1))
        this.#manifestBytes += chunk.length - 1
        return this.#sink.onManifestChunk(chunk.subarray(1))
      case 0x70: // p: bytes done so far
        this.#sink.onProgress?.(Number(chunk.readBigUInt64BE(1)), this.#totalBytes)
        return undefined
      case 0x6e: // n: a new archive
        this.#endArchive()
        this.#prefix = archivePrefix(chunk.toString('utf8', 1, chunk.indexOf(0, 1)))
        // From 16 on an in-place tablespace is an archive of its own, sent before the directory it lies in.
        if (this.#isInPlace(this.#prefix)) this.#owed = ['pg_tblspc', this.#prefix.slice(0, -1)]
        this.#tar = new TarReader({
          onEntry: (entry) => this.#takeEntry(entry),
          onContent: (content) => {
            this.#fileBytes += content.length
            return this.#sink.onFileChunk(content)
          },
          onContentEnd: () => this.#sink.onFileEnd(),
        })
        return undefined
      case 0x6d: // m: the manifest follows
        this.#endArchive()
        this.#inManifest = true
        return undefined
      default:
        throw new StreamMalformedError('an unknown copy message', { type: chunk[0] })
    }
  }

  #takeEntry(entry: TarEntry): void | Promise<void> {
    const owed = this.#owed.shift()
    if (owed !== undefined) {
      if (this.#made.has(owed)) return this.#takeEntry(entry)
      this.#made.add(owed)
      const { mtime } = entry
      const made = this.#sink.onFile({ type: 'directory', path: owed, mode: 0o700, size: 0, mtime })
      return made === undefined ? this.#takeEntry(entry) : made.then(() => this.#takeEntry(entry))
    }
    if (this.#prefix === '' && this.#made.has(entry.path)) return undefined
    if (entry.type === 'file') this.#files += 1
    this.#skipped.sent(this.#prefix + entry.path)
    if (this.#prefix === '') return this.#sink.onFile(entry)
    const { pathBytes } = entry
    return this.#sink.onFile({
      ...entry,
      path: this.#prefix + entry.path,
      ...(pathBytes ? { pathBytes: Buffer.concat([Buffer.from(this.#prefix), pathBytes]) } : {}),
    })
  }

  #isInPlace(prefix: string): boolean {
    return this.#tablespaces.some(({ oid, location }) => prefix === `pg_tblspc/${oid}/` && !location.startsWith('/'))
  }

  #archive(): TarReader {
    if (this.#tar === undefined) throw new StreamMalformedError('archive bytes before an archive')
    return this.#tar
  }

  #endArchive(): void {
    this.#tar?.end()
    this.#tar = undefined
  }
}

/** `base.tar` is the data directory, `<oid>.tar` a tablespace. */
function archivePrefix(name: string): string {
  if (name === 'base.tar') return ''
  const oid = /^(\d+)\.tar$/.exec(name)?.[1]
  if (oid === undefined) throw new StreamMalformedError('an archive of unknown name', { name })
  return `pg_tblspc/${oid}/`
}

function noticeOf(error: DatabaseError): ServerNotice {
  return { severity: error.severity ?? '', sqlState: error.code ?? '', message: error.message }
}
