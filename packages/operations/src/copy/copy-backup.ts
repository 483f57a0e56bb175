/**
 * Copies one backup from a repository of a set to another, without any key: docs/repository-format.md, section 11.
 *
 * Sealed bytes are the same in every repository, so what is copied is what was signed: each object is held against its SHA-256 on the way, and
 * the record comes last, after the target's own listing was compared. A copy that dies is gone on with: what is there is not sent again. A backup
 * that has its record there and lacks objects all the same is put right.
 * Memory: two packs.
 */
import { createHash } from 'node:crypto'
import { type Clock, type Logger, type ReportProgress, freeBuffer } from '@tidemark/kernel'
import {
  ClusterLayout,
  type CommitRecord,
  DocumentDamagedError,
  FolderMismatchError,
  PACK_TABLE,
  type PackEntry,
  type PackTable,
  type RecordAt,
  type Repository,
  StoredOtherwiseError,
  compareListing,
  holdsBytes,
  presentObjects,
  putProven,
  readBack,
  readPackTable,
  readRecordDocument,
} from '@tidemark/repository'
import { ObjectNotFoundError } from '@tidemark/storage'
import { CopyTooLongError, CopyUnprotectedError } from '../errors.ts'
import { readPack } from '../restore/fetch-pack.ts'
import { SETTLE_MS } from '../sweep/swept-marks.ts'
import { runBounded } from '../threads/run-bounded.ts'
import { Announcement } from './announcement.ts'
import { copyKeyrings, requireKeyrings } from './copy-keyrings.ts'
import { copyWal, refuseConflicts } from './copy-wal.ts'
import { type SilentFolder, silentFolders } from './folder-history.ts'

const HOUR_MS = 3_600_000
/** Without a begin object: with the half day of silence that is looked for, less than the age of debris. */
const UNPROTECTED_MS = 11 * HOUR_MS
const SETTLE_STEP_MS = 30_000
/** How often what is missing in the end is sent again. */
const ROUNDS = 3
const PACKS_AT_ONCE = 2

const FOREIGN_HINT =
  'somebody else writes there: find out who. `tidemark repo sweep` removes the unfinished folder once nothing in it is younger than 24 hours; then copy again'

export interface CopyRequest {
  readonly from: Repository
  readonly to: Repository
  readonly at: RecordAt
  /** Of the same set: asked for the keyrings that `from` lacks. */
  readonly others?: readonly Repository[]
}

export interface CopyDeps {
  readonly publicKey: string
  readonly clock: Clock
  readonly logger: Logger
  readonly signal: AbortSignal
  readonly progress: ReportProgress
}

export interface CopyOutcome {
  readonly backupId: string
  readonly cluster: string
  /** 'present': it was there already, whole by the target's listing, and nothing was done. */
  readonly outcome: 'copied' | 'present'
  /** Objects and bytes that were sent; what was there before is not counted. */
  readonly objects: number
  readonly bytes: number
}

/**
 * @throws {BackupIncompleteError} the source lacks a part of it, or has it damaged. @throws {FolderMismatchError} @throws {LeaseLostError}
 * @throws {WalSegmentConflictError} @throws {DocumentDamagedError} @throws {SignatureRefusedError} @throws {KeyringMissingError} In each case no record was written.
 */
export async function copyBackup(request: CopyRequest, deps: CopyDeps): Promise<CopyOutcome> {
  const { record, document } = await readRecordDocument(request.from, deps.publicKey, request.at, deps.signal)
  return new Copy(request, record, document, deps).run()
}

class Copy {
  readonly #request: CopyRequest
  readonly #record: CommitRecord
  readonly #document: Buffer
  readonly #deps: CopyDeps
  readonly #layout: ClusterLayout
  #recorded = false
  #objects = 0
  #bytes = 0

  constructor(request: CopyRequest, record: CommitRecord, document: Buffer, deps: CopyDeps) {
    this.#request = request
    this.#record = record
    this.#document = document
    this.#deps = deps
    this.#layout = new ClusterLayout(record.cluster, record.systemId)
  }

  async run(): Promise<CopyOutcome> {
    const { from, to, at } = this.#request
    const { signal, logger } = this.#deps
    const { backupId, cluster, packTable } = this.#record
    this.#recorded = await this.#hasRecord()
    const table = await readPackTable(from, this.#record, signal)
    if (this.#recorded) {
      const { missing } = await compareListing(to, this.#layout, table, packTable.bytes, signal)
      if (missing.length === 0) return { backupId, cluster, outcome: 'present', objects: 0, bytes: 0 }
      logger.error({ backupId, repository: to.name, missing: missing.slice(0, 20) }, 'a recorded backup lacks objects')
    } else {
      await this.#refuseForeign(table)
      await refuseConflicts(to, this.#layout, table, signal)
    }
    const { others = [] } = this.#request
    const keyrings = await copyKeyrings({ from: [from, ...others], to, record: this.#record }, this.#deps)
    this.#count(keyrings.objects, keyrings.bytes)
    const begunMs = (await to.store.storeTime(signal)).getTime()
    const folders = [backupId, ...table.packs.parents]
    const { systemId } = this.#record
    const { publicKey } = this.#deps
    const asked = { cluster, systemId, backupIds: folders, publicKey }
    const silent = await silentFolders(to, this.#layout, asked, begunMs, signal)
    await using announcement = await Announcement.begin(from, to, this.#layout, backupId, this.#deps)
    if (announcement !== undefined) this.#count(1, announcement.bytes)
    if (silent.length > 0) await this.#settle(silent, announcement)
    await this.#sendUntilComplete(table)
    const ageMs = (await to.store.storeTime(signal)).getTime() - begunMs
    // Nothing but the age of objects protects them then.
    if (announcement === undefined && ageMs > UNPROTECTED_MS)
      throw new CopyTooLongError(backupId, to.name, ageMs, UNPROTECTED_MS)
    await requireKeyrings(to, this.#record, this.#deps)
    await announcement?.require()
    const sha256 = digestOf(this.#document)
    if (
      (await to.store.putIfAbsent(at.name, this.#document, { signal, sha256 })) === 'exists' &&
      !(await this.#hasRecord())
    )
      throw new DocumentDamagedError(`${to.name} ${at.name}`, 'another record has this name')
    await readBack(to, at.name, this.#document.length, sha256, signal)
    if (!this.#recorded) this.#count(1, this.#document.length)
    this.#recorded = true
    await this.#mend(table)
    logger.info(
      { backupId, cluster, from: from.name, to: to.name, objects: this.#objects, bytes: this.#bytes },
      'backup copied',
    )
    return { backupId, cluster, outcome: 'copied', objects: this.#objects, bytes: this.#bytes }
  }

  /** @throws {DocumentDamagedError} something else has its name. */
  async #hasRecord(): Promise<boolean> {
    const { to, at } = this.#request
    try {
      if (await holdsBytes(to.store, at.name, this.#document, this.#deps.signal)) return true
      throw new DocumentDamagedError(`${to.name} ${at.name}`, 'another record has this name')
    } catch (error) {
      if (error instanceof ObjectNotFoundError) return false
      throw error
    }
  }

  /**
   * What the pack table does not name keeps the record from being written, and nothing here may delete it. Said before the copy gives a sign of
   * life: so the folder grows old, and the sweep takes it as a whole.
   *
   * @throws {FolderMismatchError}
   */
  async #refuseForeign(table: PackTable): Promise<void> {
    const { to } = this.#request
    const { unexpected } = await presentObjects(to, this.#layout, table, undefined, this.#deps.signal)
    const known = new Set([PACK_TABLE, table.source.name, ...table.fileList.map(({ name }) => name)])
    const foreign = unexpected.filter((name) => !known.has(name) && table.packs.indexOf(undefined, name) < 0)
    if (foreign.length > 0) throw new FolderMismatchError(to.name, [], foreign, FOREIGN_HINT)
  }

  /**
   * Waits until nothing that a sweep asked for before our sign of life can take effect any more. Only then is what is there counted on.
   *
   * @throws {CopyUnprotectedError} no begin object could be put, so a sweep would go on meanwhile.
   */
  async #settle(silent: readonly SilentFolder[], announcement: Announcement | undefined): Promise<void> {
    const { from, to } = this.#request
    const { clock, signal, logger, progress } = this.#deps
    if (announcement === undefined) {
      const folders = silent.map(({ backupId }) => this.#layout.base(backupId))
      throw new CopyUnprotectedError(this.#record.backupId, from.name, to.name, folders)
    }
    let nowMs = (await to.store.storeTime(signal)).getTime()
    const untilMs = SETTLE_MS + Math.max(...silent.map(({ awakeMs }) => awakeMs ?? nowMs))
    if (nowMs < untilMs)
      logger.info(
        { backupId: this.#record.backupId, repository: to.name, waitMs: untilMs - nowMs },
        'an earlier copy left objects long ago: waiting until no sweep can be at them',
      )
    while (nowMs < untilMs) {
      progress({ phase: `waiting for ${to.name}`, bytesDone: 0 })
      await clock.sleep(Math.min(SETTLE_STEP_MS, untilMs - nowMs), signal)
      nowMs = (await to.store.storeTime(signal)).getTime()
    }
    await announcement.require()
  }

  /** Everything that the target lacks, then its own listing; again where something has gone meanwhile. @throws {FolderMismatchError} */
  async #sendUntilComplete(table: PackTable): Promise<void> {
    const { from, to } = this.#request
    const { signal } = this.#deps
    for (let round = 1; ; round += 1) {
      const { present } = await presentObjects(to, this.#layout, table, undefined, signal)
      await this.#copyPacks(table.packs.entries(), present, round === 1)
      const wal = await copyWal(from, to, this.#record, table, signal)
      this.#count(wal.objects, wal.bytes)
      for (const part of [...table.fileList, table.source]) await this.#copyObject(part)
      await this.#copyTable()
      const { bytes } = this.#record.packTable
      const { missing, unexpected } = await compareListing(to, this.#layout, table, bytes, signal)
      if (unexpected.length > 0 && !this.#recorded)
        throw new FolderMismatchError(to.name, missing, unexpected, FOREIGN_HINT)
      if (missing.length === 0) return
      if (round === ROUNDS) throw new FolderMismatchError(to.name, missing, unexpected)
    }
  }

  /**
   * After the record: a backup that is listed has to be whole. What settling waits for is the store's word, and a request that hangs in a file
   * system, or a host that slept, knows no bound.
   *
   * @throws {FolderMismatchError} it is not whole; the next copy of it goes on.
   */
  async #mend(table: PackTable): Promise<void> {
    const { to } = this.#request
    const { signal, logger } = this.#deps
    const { missing } = await compareListing(to, this.#layout, table, this.#record.packTable.bytes, signal)
    if (missing.length === 0) return
    const { backupId } = this.#record
    logger.error({ backupId, repository: to.name, missing: missing.slice(0, 20) }, 'objects vanished beside the record')
    await this.#sendUntilComplete(table)
  }

  async #copyPacks(
    packs: Iterator<[number, PackEntry]>,
    present: Uint8Array,
    /** Whether what is there in its size is read where the store does not check what it gets. */
    checkPresent: boolean,
  ): Promise<void> {
    const { to } = this.#request
    const { signal, progress } = this.#deps
    const bytesTotal = this.#record.totals.storedBytes + this.#record.totals.sharedBytes
    let bytesDone = 0
    await runBounded(packs, PACKS_AT_ONCE, signal, async ([i, pack], signal) => {
      const kept = present[i] === 1 && (!checkPresent || (await this.#isRight(pack, signal)))
      if (!kept) await this.#copyObject(pack, signal)
      bytesDone += pack.bytes
      progress({ phase: `copy to ${to.name}`, bytesDone, bytesTotal, bytesStored: this.#bytes })
    })
  }

  /** Of an object that is there in its size: its bytes too. A store that checks what it gets has checked them; others are read. */
  async #isRight(pack: PackEntry, signal: AbortSignal): Promise<boolean> {
    const { to } = this.#request
    if (to.capabilities?.checksumAtIngest === true) return true
    try {
      await readBack(to, this.#nameOf(pack), pack.bytes, pack.sha256, signal)
      return true
    } catch (error) {
      if (error instanceof StoredOtherwiseError) return false
      throw error
    }
  }

  async #copyObject(object: PackEntry, signal = this.#deps.signal): Promise<void> {
    const { from, to } = this.#request
    const name = this.#nameOf(object)
    const bytes = await readPack(from, name, object, this.#record.backupId, signal)
    await putProven(to, name, bytes, object.sha256, signal)
    this.#count(1, bytes.length)
    freeBuffer(bytes)
  }

  /** The pack table as it lies in the source: its SHA-256 is the record's. */
  async #copyTable(): Promise<void> {
    const { bytes, sha256 } = this.#record.packTable
    await this.#copyObject({ name: PACK_TABLE, bytes, sha256, salt: '' })
  }

  #nameOf({ backup, name }: PackEntry): string {
    return this.#layout.base(backup ?? this.#record.backupId) + name
  }

  #count(objects: number, bytes: number): void {
    this.#objects += objects
    this.#bytes += bytes
  }
}

function digestOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}
