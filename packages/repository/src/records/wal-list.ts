/**
 * Names of WAL objects, 28 bytes each: a week's backup of a busy server has hundreds of thousands.
 *
 * Records compare as the names do, so a sorted list can be held against a listing as both go by.
 */
import { DocumentDamagedError } from '../errors.ts'
import { GrowingRecords } from './growing-records.ts'

/** Timeline, log id, segment within it (u32 each), keyed digest. */
const RECORD_BYTES = 12 + 16
const NAME = /^wal\/([0-9A-F]{8})\/([0-9A-F]{8})\/([0-9A-F]{24})-([0-9a-f]{32})$/

export class WalList implements Iterable<string> {
  readonly #records = new GrowingRecords(RECORD_BYTES)

  static of(names: Iterable<string>): WalList {
    const list = new WalList()
    for (const name of names) list.add(name)
    return list
  }

  get length(): number {
    return this.#records.count
  }

  /** Relative to the cluster's folder; undefined beyond the end. */
  at(i: number): string | undefined {
    return i >= 0 && i < this.length ? nameOf(this.#records.at(i)) : undefined
  }

  *values(): Generator<string> {
    for (let i = 0; i < this.length; i += 1) yield nameOf(this.#records.at(i))
  }

  [Symbol.iterator](): Generator<string> {
    return this.values()
  }

  /** @throws {DocumentDamagedError} it is no name of a WAL object, or its folders are not those of its segment. */
  add(name: string): void {
    const [, timeline, logId, segment = '', digest = ''] = NAME.exec(name) ?? []
    if (timeline === undefined || segment.slice(0, 16) !== `${timeline}${logId}`)
      throw new DocumentDamagedError('pack table', `${name} is no name of a WAL object`)
    const record = this.#records.add()
    record.write(segment, 0, 12, 'hex')
    record.write(digest, 12, 16, 'hex')
  }

  /** The same names, in order, each once. */
  sorted(): WalList {
    const order = Uint32Array.from({ length: this.length }, (_, i) => i)
    order.sort((a, b) => this.#records.at(a).compare(this.#records.at(b)))
    const sorted = new WalList()
    let last: Buffer | undefined
    for (const i of order) {
      const record = this.#records.at(i)
      if (last?.equals(record) !== true) record.copy(sorted.#records.add())
      last = record
    }
    return sorted
  }

  /** Whether every name sorts after the one before it. */
  get ascending(): boolean {
    for (let i = 1; i < this.length; i += 1) if (this.#records.at(i - 1).compare(this.#records.at(i)) >= 0) return false
    return true
  }
}

function nameOf(record: Buffer): string {
  const segment = record.toString('hex', 0, 12).toUpperCase()
  return `wal/${segment.slice(0, 8)}/${segment.slice(8, 16)}/${segment}-${record.toString('hex', 12)}`
}
