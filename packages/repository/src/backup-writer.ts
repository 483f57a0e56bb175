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
  parseWalFileName,
  randomId,
  segmentRange,
  walFileName,
} from '@tidemark/kernel'
import { adoptPacks } from './adoption/adopt-packs.ts'
import { earlierAttempts } from './adoption/dead-attempts.ts'
import { BackupIncompleteError, DocumentDamagedError, FolderMismatchError } from './errors.ts'
import { AttemptLease } from './attempt-lease.ts'
import { ClusterLayout, PACK_TABLE, SOURCE } from './layout.ts'
import type { FileEntry } from './packs/file-list.ts'
import { FileListWriter } from './packs/file-list-writer.ts'
import { type FileHead, FrameCutter } from './packs/frame-cutter.ts'
import { PackWriter } from './packs/pack-writer.ts'
import type { CommitRecord, RecordedServer } from './records/documents.ts'
import { compareListing } from './records/compare-listing.ts'
import { type PackTable, type SourceEntry, encodePackTable } from './records/pack-table.ts'
import { WalList } from './records/wal-list.ts'
import type { SourceDocument, SourceFacts } from './records/source-document.ts'
import { holdsBytes, isToBeReadBack, readBack } from './set/read-back.ts'
import type { OpenedKeys, Repository, RepositorySet } from './set/repository.ts'
import { SetWriter } from './set/set-writer.ts'
import { WalLayout, type WalPosition, readTimelineHistory, storeWalSegment } from './wal/wal-store.ts'

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
  readonly #walNames = new WalList()
  readonly #historyNames: string[] = []
  readonly #totals = { files: 0, directories: 0, links: 0, bytes: 0 }
  readonly #lease: AttemptLease

  private constructor(set: RepositorySet, keys: OpenedKeys, options: BeginOptions, deps: WriterDeps) {
    const { signal } = deps
    this.#set = set
    this.#keys = keys
    this.#options = options
    this.#deps = deps
    this.startedAt = deps.clock.now()
    this.#writer = new SetWriter(set.repositories, deps.logger, deps.clock)
    this.#layout = new ClusterLayout(options.cluster, options.systemId)
    this.#wal = new WalLayout(options.cluster, options.systemId)
    const { backupId, startedAt } = this
    this.#lease = new AttemptLease({ ...options, backupId, startedAt }, this.#writer, keys.keyring, deps)
    const base = this.#layout.base(backupId)
    const store = (name: string, bytes: Uint8Array, sha256: string): Promise<void> =>
      this.#writer.put(base + name, bytes, sha256, signal)
    const { keyring } = keys
    this.#packs = new PackWriter({ ...options.sealing, backupId: this.backupId, keyring, store, signal })
    this.#files = new FileListWriter({ backupId: this.backupId, keyring, suite: options.sealing.suite, store })
    this.#cutter = new FrameCutter(this.#packs, (entry) => this.#addEntry(entry))
  }

  /**
   * Announces the attempt in every repository, and takes over what dead attempts of the same operation left there: that can take as long as
   * reading it once. Memory for it: one pack, and 32 bytes a frame.
   */
  static async begin(
    set: RepositorySet,
    keys: OpenedKeys,
    options: BeginOptions,
    deps: WriterDeps,
  ): Promise<BackupWriter> {
    const writer = new BackupWriter(set, keys, options, deps)
    try {
      const attempts = await writer.#earlierAttempts()
      writer.#lease.parents = attempts
      await writer.#lease.renew()
      writer.#lease.keepRenewing()
      await writer.#adopt(attempts)
    } catch (error) {
      await writer[Symbol.asyncDispose]()
      throw error
    }
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
    this.#lease.startLsn = startLsn
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
      (repository, signal) => storeWalSegment(repository, this.#wal, position, sealed, this.#keys.keyring, signal),
      signal,
    )
    freeBuffer(sealed.sealed)
    this.#walNames.add(this.#wal.objectName(position, sealed.digest).slice(this.#layout.folder.length))
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
    const [relative, sealedDigest] = [name.slice(this.#layout.folder.length), sha256(sealed)]
    await this.#writer.each(async (repository, signal) => {
      const outcome = await repository.store.putIfAbsent(name, sealed, { signal, sha256: sealedDigest })
      // Stored earlier, perhaps under another salt: what is there has to open.
      if (outcome === 'exists') await readTimelineHistory(repository, this.#wal, relative, keyring, signal)
      else if (isToBeReadBack(repository)) await readBack(repository, name, sealed.length, sealedDigest, signal)
    }, signal)
    this.#historyNames.push(relative)
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
    await this.#lease.renew()
    await this.#writer.each((repository, signal) => this.#check(repository, table, tableBytes.length, signal), signal)
    this.#lease.throwIfSilentTooLong()
    const document = this.#keys.keyring.signer.sign(record)
    const name = this.#layout.record(facts.stoppedAt, this.backupId)
    await this.#lease.each(async (repository) => {
      await this.#lease.requireIn(repository)
      await this.#putRecord(repository, name, document)
    })
    return { record, repositories: this.#outcomes() }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#lease[Symbol.asyncDispose]()
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
  #neededWal(facts: CommitFacts): WalList {
    const { walSegmentBytes } = facts.server
    const { first, last } = segmentRange(facts.startLsn, facts.stopLsn, walSegmentBytes)
    const needed = new WalList()
    let next = first
    for (const name of this.#walNames.sorted()) {
      const { timeline, segment } = parseWalFileName(name.slice(name.lastIndexOf('/') + 1, -33), walSegmentBytes)
      if (segment < next || segment > last || timeline !== facts.timeline) continue
      if (segment > next) break
      needed.add(name)
      next += 1n
    }
    if (next > last) return needed
    const fileName = walFileName(facts.timeline, next, walSegmentBytes)
    throw new BackupIncompleteError(this.backupId, `WAL segment ${fileName}, which its own start..stop range needs`)
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
    const { own, shared } = table.packs.bytes
    const storedBytes = table.fileList.reduce((sum, { bytes }) => sum + bytes, own)
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
      parents: [...table.packs.parents],
      server: facts.server,
      wal: { first: fileName(first), last: fileName(last), segments: table.wal.length },
      totals: { ...this.#totals, storedBytes, packs: table.packs.length, sharedBytes: shared, skipped: facts.skipped },
      packTable,
      keyring: { name: newest.name, sha256: sha256(newest.bytes) },
      dataKeys: [keyring.writeKey.id],
      writer: { version: writerVersion, host: hostname() },
      requires: [],
    }
  }

  /** What other attempts of this operation the repositories know of. */
  async #earlierAttempts(): Promise<string[]> {
    const { signal } = this.#deps
    const { operationId } = this.#options
    const found = new Set<string>()
    await this.#writer.each(async (repository, signal) => {
      const ids = await earlierAttempts(repository, this.#layout, this.#set.publicKey, operationId, signal)
      for (const id of ids) found.add(id)
    }, signal)
    return [...found]
  }

  async #adopt(attempts: readonly string[]): Promise<void> {
    if (attempts.length === 0) return
    const { logger, signal } = this.#deps
    const { packBytes } = this.#options.sealing
    const { packs, frames } = await adoptPacks(attempts, {
      writer: this.#writer,
      layout: this.#layout,
      keyring: this.#keys.keyring,
      packBytes,
      logger,
      signal,
    })
    // From now on the begin objects protect what is used, and nothing else.
    this.#lease.parents = packs.parents
    if (frames.count === 0) return
    this.#packs.adopt(packs, frames)
    logger.info(
      {
        backupId: this.backupId,
        attempts: packs.parents,
        packs: packs.length,
        frames: frames.count,
        bytes: packs.bytes.shared,
      },
      'packs of dead attempts adopted',
    )
  }

  /** The repository holds exactly what the table says, and all WAL that the backup needs. */
  async #check(repository: Repository, table: PackTable, tableBytes: number, signal: AbortSignal): Promise<void> {
    const { missing, unexpected } = await compareListing(repository, this.#layout, table, tableBytes, signal)
    if (missing.length > 0 || unexpected.length > 0) throw new FolderMismatchError(repository.name, missing, unexpected)
  }

  async #putRecord(repository: Repository, name: string, document: Buffer): Promise<void> {
    const { signal } = this.#deps
    const digest = sha256(document)
    const outcome = await repository.store.putIfAbsent(name, document, { signal, sha256: digest })
    if (outcome === 'stored') {
      if (isToBeReadBack(repository)) await readBack(repository, name, document.length, digest, signal)
      return
    }
    if (!(await holdsBytes(repository.store, name, document, signal)))
      throw new DocumentDamagedError(`${repository.name} ${name}`, 'another record has this name')
  }
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}
