/**
 * Compares two collections of (key, value) that come in any order and size, in 16 MiB and a temporary file.
 *
 * Records are spread over partitions by a hash of their key, so that both sides of a key meet in one; partitions are compared one at a time.
 */
import { rm } from 'node:fs/promises'
import { SpoolFile } from './spool-file.ts'

const HELD_BYTES = 16 * 1_048_576
const PARTITIONS = 256
const HEAD_BYTES = 5

type Side = 'left' | 'right'

export interface Difference {
  readonly key: string
  /** Undefined: this side has no such key. */
  readonly left: string | undefined
  readonly right: string | undefined
}

interface Slice {
  readonly offset: number
  readonly bytes: number
}

export class SpooledJoin implements AsyncDisposable {
  readonly #path: string
  readonly #heldBytes: number
  readonly #records: Buffer[][] = Array.from({ length: PARTITIONS }, () => [])
  readonly #spilled: Slice[][] = Array.from({ length: PARTITIONS }, () => [])
  #held = 0
  #file: SpoolFile | undefined

  /** @param path of the file to be made once there is too much to hold. @param heldBytes for tests. */
  constructor(path: string, heldBytes = HELD_BYTES) {
    this.#path = path
    this.#heldBytes = heldBytes
  }

  /** Keys and values have one character per byte, 65,535 at most. A promise where something is to be written first: wait for it before the next call. */
  add(side: Side, key: string, value: string): Promise<void> | undefined {
    const record = Buffer.allocUnsafe(HEAD_BYTES + key.length + value.length)
    record.writeUInt8(side === 'left' ? 0 : 1, 0)
    record.writeUInt16LE(key.length, 1)
    record.writeUInt16LE(value.length, 3)
    record.write(key, HEAD_BYTES, 'latin1')
    record.write(value, HEAD_BYTES + key.length, 'latin1')
    this.#records[hashOf(key) % PARTITIONS]?.push(record)
    // What V8 and its buffer take beside the bytes.
    this.#held += record.length + 160
    return this.#held < this.#heldBytes ? undefined : this.#spill()
  }

  /** Every key that only one side has, or that has two values. To be called once, when all is added. */
  async *differences(): AsyncGenerator<Difference> {
    await this.#file?.flush()
    for (let partition = 0; partition < PARTITIONS; partition += 1) yield* this.#compare(partition)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file?.[Symbol.asyncDispose]()
    await rm(this.#path, { force: true })
  }

  async *#compare(partition: number): AsyncGenerator<Difference> {
    const left = new Map<string, string>()
    const right: [string, string][] = []
    for await (const [side, key, value] of this.#load(partition)) {
      if (side === 'left') left.set(key, value)
      else right.push([key, value])
    }
    for (const [key, value] of right) {
      const other = left.get(key)
      if (other !== value) yield { key, left: other, right: value }
      left.delete(key)
    }
    for (const [key, value] of left) yield { key, left: value, right: undefined }
  }

  async *#load(partition: number): AsyncGenerator<[Side, string, string]> {
    for (const { offset, bytes } of this.#spilled[partition] ?? []) {
      const slice = Buffer.alloc(bytes)
      if ((await this.#file?.read(slice, offset)) !== bytes) throw new Error('the spool of a comparison is cut short')
      yield* recordsOf(slice)
    }
    for (const record of this.#records[partition] ?? []) yield* recordsOf(record)
    this.#records[partition] = []
  }

  async #spill(): Promise<void> {
    this.#file ??= await SpoolFile.create(this.#path)
    for (const [partition, records] of this.#records.entries()) {
      if (records.length === 0) continue
      const offset = this.#file.length
      for (const record of records) await this.#file.append(record)
      this.#spilled[partition]?.push({ offset, bytes: this.#file.length - offset })
      this.#records[partition] = []
    }
    this.#held = 0
  }
}

function* recordsOf(bytes: Buffer): Generator<[Side, string, string]> {
  for (let at = 0; at < bytes.length;) {
    const keyAt = at + HEAD_BYTES
    const valueAt = keyAt + bytes.readUInt16LE(at + 1)
    const end = valueAt + bytes.readUInt16LE(at + 3)
    yield [
      bytes[at] === 0 ? 'left' : 'right',
      bytes.toString('latin1', keyAt, valueAt),
      bytes.toString('latin1', valueAt, end),
    ]
    at = end
  }
}

/** FNV-1a. */
function hashOf(key: string): number {
  let hash = 0x811c_9dc5
  for (let i = 0; i < key.length; i += 1) hash = Math.imul(hash ^ key.charCodeAt(i), 0x0100_0193) >>> 0
  return hash
}
