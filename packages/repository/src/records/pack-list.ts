/**
 * The packs of a backup, 75 bytes each: a backup of 2 TB has 130,000.
 *
 * It reads like an array of entries (`length`, `at`, iteration), but an entry is made when it is asked for: do not hold all of them.
 */
import { DocumentDamagedError } from '../errors.ts'
import { packName } from '../layout.ts'
import { GrowingRecords } from './growing-records.ts'
import type { PackEntry } from './pack-table.ts'

/** Ordinal (u32), bytes (u32), SHA-256, salt, number of the folder (u16, 0 = the backup's own), flag: the entry is there. */
const RECORD_BYTES = 4 + 4 + 32 + 32 + 2 + 1
const SHA256_AT = 8
const SALT_AT = 40
const FOLDER_AT = 72
const PRESENT_AT = 74
const MAX_U32 = 0xffff_ffff
const PACK_NAME = /^pack-(\d{5,10})$/

/** The ordinal of a pack's name, or undefined for a name that no writer gives. */
export function packOrdinal(name: string): number | undefined {
  const ordinal = Number(PACK_NAME.exec(name)?.[1] ?? Number.NaN)
  return ordinal >= 1 && ordinal <= MAX_U32 && packName(ordinal) === name ? ordinal : undefined
}

export class PackList implements Iterable<PackEntry> {
  readonly #records = new GrowingRecords(RECORD_BYTES)
  /** Folders of other backups and attempts; number n is at n − 1. */
  readonly #folders: string[] = []
  /** Indexes in order of folder and ordinal; made when somebody looks for a name. */
  #order: Uint32Array | undefined

  static of(entries: Iterable<PackEntry>): PackList {
    const list = new PackList()
    for (const entry of entries) list.set(list.reserve(), entry)
    return list
  }

  get length(): number {
    return this.#records.count
  }

  /** Ids of the other backups and attempts in whose folders some of the packs lie. */
  get parents(): readonly string[] {
    return this.#folders
  }

  /** Bytes of the packs in the backup's own folder, and of those in others. */
  get bytes(): { readonly own: number; readonly shared: number } {
    let own = 0
    let shared = 0
    for (let i = 0; i < this.length; i += 1) {
      const record = this.#records.at(i)
      if (record.readUInt16BE(FOLDER_AT) === 0) own += record.readUInt32BE(4)
      else shared += record.readUInt32BE(4)
    }
    return { own, shared }
  }

  /** The first of the largest packs; undefined where there is none. */
  get largest(): PackEntry | undefined {
    let found = 0
    for (let i = 1; i < this.length; i += 1) if (this.bytesOf(i) > this.bytesOf(found)) found = i
    return this.at(found)
  }

  /** The entry of number `i`, from 0; undefined beyond the end, as an array has it. @throws {RangeError} it was reserved and never set. */
  at(i: number): PackEntry | undefined {
    return i >= 0 && i < this.length ? this.#entry(i) : undefined
  }

  *entries(): Generator<[number, PackEntry]> {
    for (let i = 0; i < this.length; i += 1) yield [i, this.#entry(i)]
  }

  *[Symbol.iterator](): Generator<PackEntry> {
    for (let i = 0; i < this.length; i += 1) yield this.#entry(i)
  }

  /** The next number, whose entry comes later: packs are counted when they are begun and known when they are stored. */
  reserve(): number {
    this.#records.add()
    return this.length - 1
  }

  /** @throws {DocumentDamagedError} a name, size or number of folders that the format does not allow. */
  set(i: number, { name, bytes, sha256, salt, backup }: PackEntry): void {
    const ordinal = packOrdinal(name)
    if (ordinal === undefined || bytes > MAX_U32)
      throw new DocumentDamagedError('pack table', `it names ${name} of ${bytes} bytes`)
    const folder = backup === undefined ? 0 : this.#folderNumber(backup)
    const record = this.#records.at(i)
    record.writeUInt32BE(ordinal, 0)
    record.writeUInt32BE(bytes, 4)
    record.write(sha256, SHA256_AT, 32, 'hex')
    record.write(salt, SALT_AT, 32, 'hex')
    record.writeUInt16BE(folder, FOLDER_AT)
    record[PRESENT_AT] = 1
    this.#order = undefined
  }

  /** The number of a pack, or −1. @param backup the folder's id; undefined for the backup's own. */
  indexOf(backup: string | undefined, name: string): number {
    const ordinal = packOrdinal(name)
    const folder = backup === undefined ? 0 : this.#folders.indexOf(backup) + 1
    if (ordinal === undefined || (backup !== undefined && folder === 0)) return -1
    this.#order ??= Uint32Array.from({ length: this.length }, (_, i) => i).sort((a, b) => this.#compare(a, b))
    let low = 0
    let high = this.#order.length
    while (low < high) {
      const middle = (low + high) >>> 1
      const record = this.#records.at(this.#order[middle] ?? 0)
      const order = record.readUInt16BE(FOLDER_AT) - folder || record.readUInt32BE(0) - ordinal
      if (order === 0) return this.#order[middle] ?? -1
      if (order < 0) low = middle + 1
      else high = middle
    }
    return -1
  }

  /** The bytes of pack `i`, without making its entry. */
  bytesOf(i: number): number {
    return this.#records.at(i).readUInt32BE(4)
  }

  #compare(a: number, b: number): number {
    const [left, right] = [this.#records.at(a), this.#records.at(b)]
    return left.readUInt16BE(FOLDER_AT) - right.readUInt16BE(FOLDER_AT) || left.readUInt32BE(0) - right.readUInt32BE(0)
  }

  #folderNumber(backup: string): number {
    const known = this.#folders.indexOf(backup)
    if (known >= 0) return known + 1
    if (this.#folders.length === 0xffff)
      throw new DocumentDamagedError('pack table', 'its packs lie in too many folders')
    this.#folders.push(backup)
    return this.#folders.length
  }

  #entry(i: number): PackEntry {
    const record = this.#records.at(i)
    if (record[PRESENT_AT] !== 1) throw new RangeError(`pack ${i} has a number and was never stored`)
    const folder = record.readUInt16BE(FOLDER_AT)
    const backup = folder === 0 ? undefined : this.#folders[folder - 1]
    return {
      name: packName(record.readUInt32BE(0)),
      bytes: record.readUInt32BE(4),
      sha256: record.toString('hex', SHA256_AT, SALT_AT),
      salt: record.toString('hex', SALT_AT, FOLDER_AT),
      ...(backup === undefined ? {} : { backup }),
    }
  }
}
