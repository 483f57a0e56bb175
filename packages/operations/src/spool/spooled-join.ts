/**
 * Compares two collections of (key, value) that come in any order and size, in 16 MiB and a temporary file.
 *
 * Records are spread over partitions by a hash of their key, so that both sides of a key meet in one; partitions are compared one at a time.
 */
import { rm } from 'node:fs/promises'
import { freeBuffer } from '@tidemark/kernel'
import { SpoolFile } from './spool-file.ts'

const HELD_BYTES = 16 * 1_048_576
const FIRST_BYTES = 65_536
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
  /** Records one after the other: as buffers of their own they would take several times their bytes. */
  #arena: Buffer
  #used = 0
  #offsets: number[] = []
  #partitions: number[] = []
  readonly #spilled: Slice[][] = Array.from({ length: PARTITIONS }, () => [])
  #file: SpoolFile | undefined

  /** @param path of the file to be made once there is too much to hold. @param heldBytes for tests. */
  constructor(path: string, heldBytes = HELD_BYTES) {
    this.#path = path
    this.#heldBytes = heldBytes
    this.#arena = Buffer.allocUnsafeSlow(Math.min(heldBytes, FIRST_BYTES))
  }

  /** Keys and values have one character per byte, 65,535 at most. A promise where something is to be written first: wait for it before the next call. */
  add(side: Side, key: string, value: string): Promise<void> | undefined {
    const bytes = HEAD_BYTES + key.length + value.length
    if (this.#used + bytes > this.#arena.length) this.#grow(bytes)
    const at = this.#used
    const arena = this.#arena
    arena.writeUInt8(side === 'left' ? 0 : 1, at)
    arena.writeUInt16LE(key.length, at + 1)
    arena.writeUInt16LE(value.length, at + 3)
    arena.write(key, at + HEAD_BYTES, 'latin1')
    arena.write(value, at + HEAD_BYTES + key.length, 'latin1')
    this.#offsets.push(at)
    this.#partitions.push(hashOf(key) % PARTITIONS)
    this.#used += bytes
    return this.#used < this.#heldBytes ? undefined : this.#spill()
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
      const slice = Buffer.allocUnsafeSlow(bytes)
      if ((await this.#file?.read(slice, offset)) !== bytes) throw new Error('the spool of a comparison is cut short')
      yield* recordsOf(slice)
      freeBuffer(slice)
    }
    for (const [i, of] of this.#partitions.entries()) if (of === partition) yield* recordsOf(this.#record(i))
  }

  #record(i: number): Buffer {
    return this.#arena.subarray(this.#offsets[i] ?? 0, this.#offsets[i + 1] ?? this.#used)
  }

  #grow(bytes: number): void {
    const wanted = Math.max(this.#used + bytes, Math.min(this.#arena.length * 2, this.#heldBytes))
    const grown = Buffer.allocUnsafeSlow(wanted)
    this.#arena.copy(grown, 0, 0, this.#used)
    freeBuffer(this.#arena)
    this.#arena = grown
  }

  async #spill(): Promise<void> {
    this.#file ??= await SpoolFile.create(this.#path)
    const order = Uint32Array.from(this.#offsets.keys()).sort(
      (a, b) => (this.#partitions[a] ?? 0) - (this.#partitions[b] ?? 0) || a - b,
    )
    let next = 0
    for (let partition = 0; partition < PARTITIONS; partition += 1) {
      const offset = this.#file.length
      for (; this.#partitions[order[next] ?? -1] === partition; next += 1) {
        const written = this.#file.append(this.#record(order[next] ?? 0))
        if (written !== undefined) await written
      }
      const bytes = this.#file.length - offset
      if (bytes > 0) this.#spilled[partition]?.push({ offset, bytes })
    }
    this.#used = 0
    this.#offsets = []
    this.#partitions = []
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
