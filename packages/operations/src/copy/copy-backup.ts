/**
 * Copies one backup from a repository of a set to another, without any key: docs/repository-format.md, section 11.
 *
 * Sealed bytes are the same in every repository, so what is copied is what was signed: each object is held against its SHA-256 on the way, and
 * the record comes last, after the target's own listing was compared. A copy that dies is gone on with: what is there is not sent again.
 * Memory: two packs.
 */
import { createHash } from 'node:crypto'
import { SignatureRefusedError, openSignedDocument } from '@tidemark/crypto'
import { type Clock, type Logger, OperationalError, type ReportProgress, freeBuffer } from '@tidemark/kernel'
import {
  ClusterLayout,
  type CommitRecord,
  DocumentDamagedError,
  FolderMismatchError,
  LeaseLostError,
  PACK_TABLE,
  type PackEntry,
  type RecordAt,
  type Repository,
  StoredOtherwiseError,
  compareListing,
  listRecordNames,
  parseBeginName,
  presentObjects,
  putProven,
  readBack,
  readKeyrings,
  readPackTable,
  readRecordDocument,
} from '@tidemark/repository'
import { ObjectNotFoundError } from '@tidemark/storage'
import { readPack } from '../restore/fetch-pack.ts'
import { runBounded } from '../threads/run-bounded.ts'
import { copyWal } from './copy-wal.ts'

const HOUR_MS = 3_600_000
/** As for adoption: what is older may be on its way out by a sweep, and is put again. */
const TRUSTED_MS = 12 * HOUR_MS
/** The begin object in the target protects the folders of parents, which get no new objects for as long as a copy takes. */
const REFRESH_BEGIN_MS = HOUR_MS / 2
/** With the age of what is trusted, less than the age of debris. */
const UNPROTECTED_MS = 11 * HOUR_MS
const PACKS_AT_ONCE = 2

export interface CopyRequest {
  readonly from: Repository
  readonly to: Repository
  readonly at: RecordAt
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
  /** 'present': its record was there already, and nothing was done. */
  readonly outcome: 'copied' | 'present'
  /** Objects and bytes that were sent; what was there before is not counted. */
  readonly objects: number
  readonly bytes: number
}

/**
 * @throws {BackupIncompleteError} the source lacks a part of it, or has it damaged. @throws {FolderMismatchError}
 * @throws {WalSegmentConflictError} @throws {DocumentDamagedError} @throws {SignatureRefusedError} In each case no record was written.
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
  #objects = 0
  #bytes = 0
  #begin: { readonly name: string; readonly bytes: Buffer; putMs: number } | undefined

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
    const { backupId, cluster } = this.#record
    if (await this.#hasRecord()) return { backupId, cluster, outcome: 'present', objects: 0, bytes: 0 }
    const table = await readPackTable(from, this.#record, signal)
    await this.#copyKeyrings()
    const begunMs = (await to.store.storeTime(signal)).getTime()
    const stale = await this.#staleFolders(table.packs.parents, begunMs)
    await this.#announce()
    const there = await presentObjects(to, this.#layout, table, undefined, signal)
    await this.#copyPacks(table.packs.entries(), there.present, stale)
    const wal = await copyWal(from, to, this.#record, table, signal)
    this.#count(wal.objects, wal.bytes)
    for (const part of [...table.fileList, table.source]) await this.#copyObject(part)
    await this.#copyTable()
    const { missing, unexpected } = await compareListing(to, this.#layout, table, this.#record.packTable.bytes, signal)
    if (missing.length > 0 || unexpected.length > 0) throw new FolderMismatchError(to.name, missing, unexpected)
    const ageMs = (await to.store.storeTime(signal)).getTime() - begunMs
    // Nothing but their own age protects the folders of parents then.
    if (this.#begin === undefined && table.packs.parents.length > 0 && ageMs > UNPROTECTED_MS)
      throw new LeaseLostError(backupId, ageMs)
    const sha256 = digestOf(this.#document)
    if (
      (await to.store.putIfAbsent(at.name, this.#document, { signal, sha256 })) === 'exists' &&
      !(await this.#hasRecord())
    )
      throw new DocumentDamagedError(`${to.name} ${at.name}`, 'another record has this name')
    await readBack(to, at.name, this.#document.length, sha256, signal)
    this.#count(1, this.#document.length)
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
      const stored = await to.store.get(at.name, { signal: this.#deps.signal })
      if (stored.equals(this.#document)) return true
      throw new DocumentDamagedError(`${to.name} ${at.name}`, 'another record has this name')
    } catch (error) {
      if (error instanceof ObjectNotFoundError) return false
      throw error
    }
  }

  /** Verbatim, and only those whose signature holds. */
  async #copyKeyrings(): Promise<void> {
    const { from, to } = this.#request
    const { signal, publicKey } = this.#deps
    const there = new Set<string>()
    for await (const { name } of to.store.list('keys/', { signal })) there.add(name)
    for (const { name, bytes } of await readKeyrings(from, signal)) {
      if (there.has(name)) continue
      try {
        openSignedDocument(bytes, publicKey, `${name} in ${from.name}`)
      } catch (error) {
        if (!(error instanceof SignatureRefusedError)) throw error
        this.#deps.logger.warn({ repository: from.name, object: name }, 'no keyring of this set: not copied')
        continue
      }
      if ((await to.store.putIfAbsent(name, bytes, { signal, sha256: digestOf(bytes) })) === 'stored')
        this.#count(1, bytes.length)
    }
  }

  /** Folders in the target that a sweep may be at. Asked before the begin object makes them look alive. */
  async #staleFolders(parents: readonly string[], nowMs: number): Promise<Set<string>> {
    const { to } = this.#request
    const { signal } = this.#deps
    const stale = new Set<string>()
    for (const folder of [this.#record.backupId, ...parents]) {
      let newestMs = Number.NEGATIVE_INFINITY
      for (const prefix of [this.#layout.base(folder), this.#layout.beginsOf(folder)]) {
        for await (const { modifiedAt } of to.store.list(prefix, { signal }))
          newestMs = Math.max(newestMs, modifiedAt.getTime())
      }
      if (newestMs !== Number.NEGATIVE_INFINITY && nowMs - newestMs >= TRUSTED_MS) stale.add(folder)
    }
    if (stale.size === 0) return stale
    // What has a record is no debris, however old.
    for await (const { backupId } of listRecordNames(to, this.#record.cluster, signal)) stale.delete(backupId)
    return stale
  }

  /** The source's newest begin object, under its own name: it names the parents. Put again now and then, it stays young. */
  async #announce(): Promise<void> {
    const { from, to } = this.#request
    const { clock, signal, publicKey, logger } = this.#deps
    if (this.#begin === undefined) {
      let newest: { name: string; number: number } | undefined
      for await (const { name } of from.store.list(this.#layout.beginsOf(this.#record.backupId), { signal })) {
        const number = parseBeginName(name)?.number ?? -1
        if (number > (newest?.number ?? -1)) newest = { name, number }
      }
      if (newest === undefined) return
      const bytes = await from.store.get(newest.name, { signal })
      try {
        openSignedDocument(bytes, publicKey, `${newest.name} in ${from.name}`)
      } catch (error) {
        if (!(error instanceof OperationalError)) throw error
        // It protects the copy while that lasts, and nothing reads it later.
        logger.warn({ repository: from.name, code: error.code, reason: error.message }, 'begin object not copied')
        return
      }
      this.#begin = { name: newest.name, bytes, putMs: Number.NEGATIVE_INFINITY }
    }
    const begin = this.#begin
    const nowMs = clock.monotonicMs()
    if (nowMs - begin.putMs < REFRESH_BEGIN_MS) return
    begin.putMs = nowMs
    await putProven(to, begin.name, begin.bytes, digestOf(begin.bytes), signal)
    this.#count(1, begin.bytes.length)
  }

  async #copyPacks(
    packs: Iterator<[number, PackEntry]>,
    present: Uint8Array,
    stale: ReadonlySet<string>,
  ): Promise<void> {
    const { to } = this.#request
    const { signal, progress } = this.#deps
    const bytesTotal = this.#record.totals.storedBytes + this.#record.totals.sharedBytes
    let bytesDone = 0
    await runBounded(packs, PACKS_AT_ONCE, signal, async ([i, pack], signal) => {
      await this.#announce()
      const kept = present[i] === 1 && !stale.has(pack.backup ?? this.#record.backupId)
      if (!kept || !(await this.#isRight(pack, signal))) await this.#copyObject(pack, signal)
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
