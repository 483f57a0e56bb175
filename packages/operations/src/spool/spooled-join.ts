/**
 * Compares two collections of (key, value) that come in any order and size, in 16 MiB and a temporary file.
 *
 * Records are spread over partitions by a hash of their key, so that both sides of a key meet in one; partitions are compared one at a time.
 */
import { rm } from 'node:fs/promises'
import { freeBuffer, pageAligned } from '@tidemark/kernel'
import { SpoolFile } from './spool-file.ts'

const HELD_BYTES = 16 * 1_048_576
const PARTITIONS = 256
/** Held at once: of few bytes each, more than this many are written out early. */
const RECORDS_HELD = 262_144
const HEAD_BYTES = 5
const LARGEST_BYTES = HEAD_BYTES + 2 * 65_535

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
  /** Records one after the other: as buffers of their own they would take several times their bytes. Pages that were never used take no memory. */
  readonly #arena: Buffer
  #used = 0
  #records = 0
  /** Of each record, and where the last one ends. */
  readonly #offsets = new Uint32Array(RECORDS_HELD + 1)
  readonly #partitions = new Uint8Array(RECORDS_HELD)
  /** What is read back; tens of thousands of small ones would wait for the collector otherwise. */
  #slice = Buffer.alloc(0)
  readonly #spilled: Slice[][] = Array.from({ length: PARTITIONS }, () => [])
  #file: SpoolFile | undefined

  /** @param path of the file to be made once there is too much to hold. @param heldBytes for tests. */
  constructor(path: string, heldBytes = HELD_BYTES) {
    this.#path = path
    this.#heldBytes = heldBytes
    this.#arena = Buffer.from(pageAligned(heldBytes + LARGEST_BYTES).buffer)
  }

  /** Keys and values have one character per byte, 65,535 at most. A promise where something is to be written first: wait for it before the next call. */
  add(side: Side, key: string, value: string): Promise<void> | undefined {
    const bytes = HEAD_BYTES + key.length + value.length
    const at = this.#used
    const arena = this.#arena
    arena.writeUInt8(side === 'left' ? 0 : 1, at)
    arena.writeUInt16LE(key.length, at + 1)
    arena.writeUInt16LE(value.length, at + 3)
    arena.write(key, at + HEAD_BYTES, 'latin1')
    arena.write(value, at + HEAD_BYTES + key.length, 'latin1')
    this.#partitions[this.#records] = hashOf(key) % PARTITIONS
    this.#used += bytes
    this.#records += 1
    this.#offsets[this.#records] = this.#used
    return this.#used < this.#heldBytes && this.#records < RECORDS_HELD ? undefined : this.#spill()
  }

  /** Every key that only one side has, or that has two values. To be called once, when all is added. */
  async *differences(): AsyncGenerator<Difference> {
    if (this.#file !== undefined) {
      await this.#spill()
      await this.#file.flush()
    }
    for (let partition = 0; partition < PARTITIONS; partition += 1) yield* this.#compare(partition)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    freeBuffer(this.#arena)
    await this.#file?.[Symbol.asyncDispose]()
    await rm(this.#path, { force: true })
  }

  async *#compare(partition: number): AsyncGenerator<Difference> {
    const left = new Map<string, string>()
    for await (const [side, key, value] of this.#load(partition)) if (side === 'left') left.set(key, value)
    // Read twice, so that only one side is held.
    for await (const [side, key, value] of this.#load(partition)) {
      if (side === 'left') continue
      const other = left.get(key)
      if (other !== value) yield { key, left: other, right: value }
      left.delete(key)
    }
    for (const [key, value] of left) yield { key, left: value, right: undefined }
  }

  async *#load(partition: number): AsyncGenerator<[Side, string, string]> {
    for (const { offset, bytes } of this.#spilled[partition] ?? []) {
      if (this.#slice.length < bytes) this.#slice = Buffer.allocUnsafeSlow(bytes)
      const slice = this.#slice.subarray(0, bytes)
      if ((await this.#file?.read(slice, offset)) !== bytes) throw new Error('the spool of a comparison is cut short')
      yield* recordsOf(slice)
    }
    for (let i = 0; i < this.#records; i += 1) if (this.#partitions[i] === partition) yield* recordsOf(this.#record(i))
  }

  #record(i: number): Buffer {
    return this.#arena.subarray(this.#offsets[i], this.#offsets[i + 1])
  }

  async #spill(): Promise<void> {
    this.#file ??= await SpoolFile.create(this.#path)
    const { order, ends } = this.#byPartition()
    let next = 0
    for (const [partition, end] of ends.entries()) {
      const offset = this.#file.length
      for (; next < end; next += 1) {
        const written = this.#file.append(this.#record(order[next] ?? 0))
        if (written !== undefined) await written
      }
      const bytes = this.#file.length - offset
      if (bytes > 0) this.#spilled[partition]?.push({ offset, bytes })
    }
    this.#used = 0
    this.#records = 0
  }

  /** Numbers of the records held, those of one partition together and as they came, and where each partition ends among them. */
  #byPartition(): { order: Uint32Array; ends: Uint32Array } {
    const ends = new Uint32Array(PARTITIONS)
    const held = this.#partitions.subarray(0, this.#records)
    for (const partition of held) ends[partition] = (ends[partition] ?? 0) + 1
    for (let i = 1; i < PARTITIONS; i += 1) ends[i] = (ends[i] ?? 0) + (ends[i - 1] ?? 0)
    const next = Uint32Array.from(ends, (_, i) => (i === 0 ? 0 : (ends[i - 1] ?? 0)))
    const order = new Uint32Array(this.#records)
    for (const [record, partition] of held.entries()) {
      const place = next[partition] ?? 0
      order[place] = record
      next[partition] = place + 1
    }
    return { order, ends }
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
