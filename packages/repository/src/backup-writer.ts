/**
 * Writes one base backup into every repository of a set: docs/repository-format.md, section 11.
 *
 * States: *begun* (begin objects stored, lease renewed) → files and WAL come → *committed* (records stored). Leaving it any
 * other way leaves debris that no listing shows. One writer is one attempt: its backup id is never used again.
 */
import { createHash, randomBytes } from 'node:crypto'
import { hostname } from 'node:os'
import { FORMAT_VERSION, type SuiteName, sealBytes, timelineHistoryDigest } from '@tidemark/crypto'
import {
  type Clock,
  type Logger,
  type Lsn,
  type Problem,
  formatLsn,
  freeBuffer,
  randomId,
  segmentRange,
  walFileName,
} from '@tidemark/kernel'
import { BackupIncompleteError, DocumentDamagedError, FolderMismatchError, LeaseLostError } from './errors.ts'
import { ClusterLayout, PACK_TABLE, SOURCE } from './layout.ts'
import type { FileEntry } from './packs/file-list.ts'
import { FileListWriter } from './packs/file-list-writer.ts'
import { type FileHead, FrameCutter } from './packs/frame-cutter.ts'
import { PackWriter } from './packs/pack-writer.ts'
import type { Begin, CommitRecord, RecordedServer } from './records/documents.ts'
import { type PackTable, type SourceEntry, encodePackTable } from './records/pack-table.ts'
import type { SourceDocument, SourceFacts } from './records/source-document.ts'
import type { OpenedKeys, Repository, RepositorySet } from './set/repository.ts'
import { SetWriter } from './set/set-writer.ts'
import { WalLayout, type WalPosition, missingWal, storeWalSegment } from './wal/wal-store.ts'

const RENEW_EVERY_MS = 10 * 60_000
const LEASE_MS = 60 * 60_000

export interface SealingSettings {
  readonly suite: SuiteName
  /** zstd level 1..19, 0 for none. */
  readonly compressionLevel: number
  readonly threads: number
  readonly uploads: number
  readonly packBytes: number
}

export interface BeginOptions {
  readonly cluster: string
  readonly systemId: string
  readonly operationId: string
  readonly sealing: SealingSettings
  readonly writerVersion: string
}

export interface WriterDeps {
  readonly clock: Clock
  readonly logger: Logger
  readonly signal: AbortSignal
}

/** What only the source knows. */
export interface CommitFacts {
  readonly timeline: number
  readonly startLsn: Lsn
  readonly stopLsn: Lsn
  readonly verdict: CommitRecord['verdict']
  readonly damage: readonly string[]
  readonly server: RecordedServer
  readonly source: SourceFacts
  /** Links and special files that the server did not send. */
  readonly skipped: number
  readonly stoppedAt: Date
}

export interface Committed {
  readonly record: CommitRecord
  readonly repositories: readonly {
    readonly name: string
    readonly outcome: 'stored' | 'dropped'
    readonly problem?: Problem
  }[]
}

export class BackupWriter implements AsyncDisposable {
  readonly backupId = randomId()
  readonly startedAt: Date
  readonly #options: BeginOptions
  readonly #deps: WriterDeps
  readonly #set: RepositorySet
  readonly #keys: OpenedKeys
  readonly #writer: SetWriter
  readonly #layout: ClusterLayout
  readonly #wal: WalLayout
  readonly #packs: PackWriter
  readonly #files: FileListWriter
  readonly #cutter: FrameCutter
  readonly #walNames = new Map<bigint, string>()
  readonly #historyNames: string[] = []
  readonly #totals = { files: 0, directories: 0, links: 0, bytes: 0 }
  #startLsn: Lsn | undefined
  #begins = 0
  #renewed: { readonly monotonicMs: number; readonly at: Date } | undefined
  #renewal: NodeJS.Timeout | undefined
  #renewing: Promise<void> = Promise.resolve()

  private constructor(set: RepositorySet, keys: OpenedKeys, options: BeginOptions, deps: WriterDeps) {
    const { signal } = deps
    this.#set = set
    this.#keys = keys
    this.#options = options
    this.#deps = deps
    this.startedAt = deps.clock.now()
    this.#writer = new SetWriter(set.repositories, deps.logger)
    this.#layout = new ClusterLayout(options.cluster, options.systemId)
    this.#wal = new WalLayout(options.cluster, options.systemId)
    const base = this.#layout.base(this.backupId)
    const store = (name: string, bytes: Uint8Array, sha256: string): Promise<void> =>
      this.#writer.put(base + name, bytes, sha256, signal)
    const { keyring } = keys
    this.#packs = new PackWriter({ ...options.sealing, backupId: this.backupId, keyring, store, signal })
    this.#files = new FileListWriter({ backupId: this.backupId, keyring, suite: options.sealing.suite, store })
    this.#cutter = new FrameCutter(this.#packs, (entry) => this.#addEntry(entry))
  }

  /** Announces the attempt in every repository. */
  static async begin(
    set: RepositorySet,
    keys: OpenedKeys,
    options: BeginOptions,
    deps: WriterDeps,
  ): Promise<BackupWriter> {
    const writer = new BackupWriter(set, keys, options, deps)
    try {
      await writer.#renew()
    } catch (error) {
      await writer[Symbol.asyncDispose]()
      throw error
    }
    writer.#renewal = setInterval(() => {
      writer.#renewing = writer.#renew().catch((error: unknown) =>
        deps.logger.warn({ err: error, backupId: writer.backupId }, 'begin object not renewed'),
      )
    }, RENEW_EVERY_MS)
    writer.#renewal.unref()
    return writer
  }

  /** Bytes durable so far, in packs. */
  get storedBytes(): number {
    return this.#packs.storedBytes
  }

  get totals(): Readonly<{ files: number; bytes: number }> {
    return this.#totals
  }

  get dropped(): ReadonlyMap<string, Problem> {
    return this.#writer.dropped
  }

  /** The server's start LSN, for begin objects from now on. */
  setStart(startLsn: Lsn): void {
    this.#startLsn = startLsn
  }

  beginFile(head: FileHead): void {
    this.#cutter.beginFile(head)
  }

  /** See FrameCutter.write: undefined when there is no need to wait. */
  write(chunk: Uint8Array): Promise<void> | undefined {
    return this.#cutter.write(chunk)
  }

  /** A promise only where a part of the file list is being stored: waiting for it bounds memory; its failure comes back in `commit` too. */
  endFile(): Promise<void> | undefined {
    this.#cutter.endFile()
    return this.#files.flushFullPart()
  }

  /** Seals one full segment and makes it durable in every repository. `bytes` are taken: empty afterwards. @throws {RequiredRepositoryError} */
  async addWalSegment(position: WalPosition, bytes: Uint8Array): Promise<void> {
    const { timeline, segment } = position
    const sealed = await this.#packs.sealWal(bytes, { systemId: this.#wal.systemId, timeline, segment })
    const { signal } = this.#deps
    await this.#writer.each(
      (repository) => storeWalSegment(repository, this.#wal, position, sealed, this.#keys.keyring, signal),
      signal,
    )
    freeBuffer(sealed.sealed)
    this.#walNames.set(segment, this.#wal.objectName(position, sealed.digest).slice(this.#layout.folder.length))
  }

  /** Stores the history file of the backup's timeline, under a name that carries its digest. */
  async addTimelineHistory(timeline: number, bytes: Uint8Array): Promise<void> {
    const { keyring } = this.#keys
    const digest = timelineHistoryDigest(keyring.digestKey, { systemId: this.#wal.systemId, timeline }, bytes).toString(
      'hex',
    )
    const name = this.#layout.timelineHistory(timeline, digest)
    const sealed = sealBytes(bytes, {
      suite: this.#options.sealing.suite,
      dataKey: keyring.writeKey,
      identity: { kind: 'other', streamId: digest },
      compressionLevel: 0,
    })
    const { signal } = this.#deps
    await this.#writer.each(async ({ store }) => {
      await store.putIfAbsent(name, sealed, { signal, sha256: sha256(sealed) })
    }, signal)
    this.#historyNames.push(name.slice(this.#layout.folder.length))
  }

  /**
   * Makes the backup exist.
   *
   * @throws {RequiredRepositoryError} @throws {FolderMismatchError} @throws {LeaseLostError}: it does not exist in that repository.
   */
  async commit(facts: CommitFacts): Promise<Committed> {
    const { signal } = this.#deps
    this.#cutter.finish()
    const packs = await this.#packs.finish()
    if (this.#cutter.unfinished > 0) throw new RangeError(`${this.#cutter.unfinished} files have no place`)
    const fileList = await this.#files.finish()
    const wal = this.#neededWal(facts)
    const source = await this.#putSource(facts)
    const table: PackTable = { backupId: this.backupId, packs, fileList, source, wal, history: this.#historyNames }
    const tableBytes = encodePackTable(table)
    const tableSha256 = sha256(tableBytes)
    await this.#writer.put(this.#layout.base(this.backupId) + PACK_TABLE, tableBytes, tableSha256, signal)
    const record = this.#record(facts, table, { bytes: tableBytes.length, sha256: tableSha256 })
    await this.#renew()
    await this.#writer.each((repository) => this.#check(repository, table, tableBytes.length), signal)
    this.#throwIfLeaseLost()
    const document = this.#keys.keyring.signer.sign(record)
    const name = this.#layout.record(facts.stoppedAt, this.backupId)
    await this.#writer.each((repository) => this.#putRecord(repository, name, document), signal)
    return { record, repositories: this.#outcomes() }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#renewal)
    await this.#renewing
    await this.#packs[Symbol.asyncDispose]()
  }

  #addEntry(entry: FileEntry): void {
    if (entry.type === 'file') this.#totals.files += 1
    else if (entry.type === 'directory') this.#totals.directories += 1
    else this.#totals.links += 1
    this.#totals.bytes += entry.size
    this.#files.add(entry)
  }

  async #putSource({ source, stoppedAt }: CommitFacts): Promise<SourceEntry> {
    const document: SourceDocument = {
      format: 'tidemark-source',
      version: FORMAT_VERSION,
      backupId: this.backupId,
      capturedAt: stoppedAt.toISOString(),
      ...source,
    }
    const streamId = randomBytes(16).toString('hex')
    const sealed = sealBytes(Buffer.from(JSON.stringify(document)), {
      suite: this.#options.sealing.suite,
      dataKey: this.#keys.keyring.writeKey,
      identity: { kind: 'other', streamId },
      compressionLevel: 3,
    })
    const digest = sha256(sealed)
    await this.#writer.put(this.#layout.base(this.backupId) + SOURCE, sealed, digest, this.#deps.signal)
    return { name: SOURCE, bytes: sealed.length, sha256: digest, salt: sealed.toString('hex', 32, 64), streamId }
  }

  /** Names of every segment from start to stop. @throws {BackupIncompleteError} one did not come. */
  #neededWal(facts: CommitFacts): string[] {
    const { walSegmentBytes } = facts.server
    const { first, last } = segmentRange(facts.startLsn, facts.stopLsn, walSegmentBytes)
    const names: string[] = []
    for (let segment = first; segment <= last; segment += 1n) {
      const name = this.#walNames.get(segment)
      if (name === undefined) {
        const fileName = walFileName(facts.timeline, segment, walSegmentBytes)
        throw new BackupIncompleteError(this.backupId, `WAL segment ${fileName}, which its own start..stop range needs`)
      }
      names.push(name)
    }
    return names
  }

  #outcomes(): Committed['repositories'] {
    return this.#set.repositories.map(({ name }) => {
      const problem = this.#writer.dropped.get(name)
      return problem === undefined ? { name, outcome: 'stored' } : { name, outcome: 'dropped', problem }
    })
  }

  #record(facts: CommitFacts, table: PackTable, packTable: CommitRecord['packTable']): CommitRecord {
    const { cluster, systemId, operationId, writerVersion } = this.#options
    const { keyring, newest } = this.#keys
    const { walSegmentBytes } = facts.server
    const { first, last } = segmentRange(facts.startLsn, facts.stopLsn, walSegmentBytes)
    const fileName = (segment: bigint): string => walFileName(facts.timeline, segment, walSegmentBytes)
    const own = table.packs.filter(({ backup }) => backup === undefined)
    const storedBytes = [...own, ...table.fileList].reduce((sum, { bytes }) => sum + bytes, 0)
    return {
      format: 'tidemark-backup',
      version: FORMAT_VERSION,
      backupId: this.backupId,
      operationId,
      cluster,
      systemId,
      setId: this.#set.setId,
      timeline: facts.timeline,
      startLsn: formatLsn(facts.startLsn),
      stopLsn: formatLsn(facts.stopLsn),
      startedAt: this.startedAt.toISOString(),
      stoppedAt: facts.stoppedAt.toISOString(),
      verdict: facts.verdict,
      damage: [...facts.damage],
      parents: [],
      server: facts.server,
      wal: { first: fileName(first), last: fileName(last), segments: table.wal.length },
      totals: { ...this.#totals, storedBytes, packs: table.packs.length, sharedBytes: 0, skipped: facts.skipped },
      packTable,
      keyring: { name: newest.name, sha256: sha256(newest.bytes) },
      dataKeys: [keyring.writeKey.id],
      writer: { version: writerVersion, host: hostname() },
      requires: [],
    }
  }

  /** @throws {LeaseLostError} too late: the attempt's objects may be on their way out, and a new begin object would only hide it. */
  async #renew(): Promise<void> {
    this.#throwIfLeaseLost()
    const begin: Begin = {
      format: 'tidemark-begin',
      version: FORMAT_VERSION,
      backupId: this.backupId,
      operationId: this.#options.operationId,
      number: this.#begins,
      cluster: this.#options.cluster,
      systemId: this.#options.systemId,
      startedAt: this.startedAt.toISOString(),
      startLsn: this.#startLsn === undefined ? null : formatLsn(this.#startLsn),
      parents: [],
      host: hostname(),
      pid: process.pid,
      requires: [],
    }
    const { clock } = this.#deps
    const asked = { monotonicMs: clock.monotonicMs(), at: clock.now() }
    const document = this.#keys.keyring.signer.sign(begin)
    const name = this.#layout.begin(this.backupId, this.#begins)
    this.#begins += 1
    await this.#writer.put(name, document, sha256(document), this.#deps.signal)
    this.#renewed = asked
  }

  /** By both clocks: the monotonic one stands still while the host sleeps, the other may be set back. */
  #throwIfLeaseLost(): void {
    if (this.#renewed === undefined) return
    const { clock } = this.#deps
    const { monotonicMs, at } = this.#renewed
    const ageMs = Math.max(clock.monotonicMs() - monotonicMs, clock.now().getTime() - at.getTime())
    if (ageMs > LEASE_MS) throw new LeaseLostError(this.backupId, ageMs)
  }

  /** The repository holds exactly what the table says, and all WAL that the backup needs. */
  async #check(repository: Repository, table: PackTable, tableBytes: number): Promise<void> {
    const { signal } = this.#deps
    const base = this.#layout.base(this.backupId)
    const expected = new Map([...table.packs, ...table.fileList, table.source].map(({ name, bytes }) => [name, bytes]))
    expected.set(PACK_TABLE, tableBytes)
    const unexpected: string[] = []
    for await (const { name, size } of repository.store.list(base, { signal })) {
      const relative = name.slice(base.length)
      if (expected.get(relative) === size) expected.delete(relative)
      else unexpected.push(relative)
    }
    const logs = await missingWal(repository, this.#layout, [...table.wal, ...table.history], signal)
    const missing = [...expected.keys(), ...logs]
    if (missing.length > 0 || unexpected.length > 0) throw new FolderMismatchError(repository.name, missing, unexpected)
  }

  async #putRecord(repository: Repository, name: string, document: Buffer): Promise<void> {
    const { signal } = this.#deps
    const outcome = await repository.store.putIfAbsent(name, document, { signal, sha256: sha256(document) })
    if (outcome === 'stored') return
    const stored = await repository.store.get(name, { signal })
    if (!stored.equals(document))
      throw new DocumentDamagedError(`${repository.name} ${name}`, 'another record has this name')
  }
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}
