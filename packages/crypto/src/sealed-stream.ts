/** Sealing and unsealing of whole streams: small objects in memory, and pipes of any length. */
import { randomBytes } from 'node:crypto'
import { freeBuffer } from '@tidemark/kernel'
import { SealRefusedError } from './errors.ts'
import { type FrameFlags, type OpenedFrame, type SealedFrame, frameShape, openFrame, sealFrame } from './frame.ts'
import type { DataKey } from './keyring.ts'
import { type StreamHeader, type StreamIdentity, encodeStreamHeader, openStreamHeader } from './stream-header.ts'
import type { StreamKeys } from './stream-keys.ts'
import { FRAME_BYTES, FRAME_HEADER_BYTES, HEADER_BYTES, MAX_FRAME_OVERHEAD, SUITES, type SuiteName } from './suite.ts'

const DATA: FrameFlags = { last: false, table: false }

export interface SealOptions {
  readonly suite: SuiteName
  readonly dataKey: DataKey
  readonly identity: StreamIdentity
  /** zstd level 1..19, or 0 for none. */
  readonly compressionLevel: number
}

/** Seals the frames of one stream, in order. The salt is fresh: make one sealer per stream and attempt. */
export class StreamSealer {
  readonly header: StreamHeader
  readonly #keys: StreamKeys
  readonly #level: number
  #index = 0
  #ended = false

  constructor(options: SealOptions) {
    const { dataKey, identity, suite } = options
    const sealed = encodeStreamHeader(SUITES[suite], identity, dataKey.id, dataKey.bytes, randomBytes(32))
    this.header = sealed.header
    this.#keys = sealed.keys
    this.#level = options.compressionLevel
  }

  /** The number of frames sealed so far, which is the index of the next one. */
  get frames(): number {
    return this.#index
  }

  seal(plaintext: Uint8Array, flags: FrameFlags = DATA): SealedFrame {
    if (this.#ended) throw new RangeError('the stream has had its last frame')
    this.#ended = flags.last
    const sealed = sealFrame({ header: this.header, keys: this.#keys }, this.#index, plaintext, flags, this.#level)
    this.#index += 1
    return sealed
  }
}

/** Opens frames of one stream in any order. Construction authenticates the header. */
export class StreamOpener {
  readonly header: StreamHeader
  readonly #keys: StreamKeys
  readonly #what: string

  /** @throws {SealRefusedError} @throws {UnknownDataKeyError} */
  constructor(
    stored: Buffer,
    keyOf: (dataKeyId: string) => Uint8Array,
    expected: StreamIdentity | undefined,
    what: string,
  ) {
    const opened = openStreamHeader(stored, keyOf, expected, what)
    this.header = opened.header
    this.#keys = opened.keys
    this.#what = what
  }

  /** @throws {SealRefusedError} */
  open(stored: Buffer, offset: number, index: number): OpenedFrame {
    return openFrame({ header: this.header, keys: this.#keys }, stored, offset, index, this.#what)
  }
}

/**
 * Seals `plaintext` as one object held in memory.
 *
 * The result is a view of a larger buffer of its own, made for the case that nothing can be compressed: the operating system gives memory
 * only to the part that is written to, and parts that are joined at the end would need it twice.
 */
export function sealBytes(plaintext: Uint8Array, options: SealOptions): Buffer {
  const sealer = new StreamSealer(options)
  const frames = Math.max(1, Math.ceil(plaintext.length / FRAME_BYTES))
  const sealed = Buffer.allocUnsafeSlow(HEADER_BYTES + plaintext.length + frames * MAX_FRAME_OVERHEAD)
  let used = sealer.header.bytes.copy(sealed)
  let offset = 0
  do {
    const end = Math.min(offset + FRAME_BYTES, plaintext.length)
    const last = end === plaintext.length
    for (const part of sealer.seal(plaintext.subarray(offset, end), { last, table: false }).parts) {
      used += part.copy(sealed, used)
      freeBuffer(part)
    }
    offset = end
  } while (offset < plaintext.length)
  return sealed.subarray(0, used)
}

/** The whole plaintext of a sealed object held in memory. @throws {SealRefusedError} */
export function unsealBytes(
  stored: Buffer,
  keyOf: (dataKeyId: string) => Uint8Array,
  expected: StreamIdentity | undefined,
  what: string,
): Buffer {
  const opener = new StreamOpener(stored, keyOf, expected, what)
  const plaintexts: Buffer[] = []
  let offset = HEADER_BYTES
  for (let index = 0; ; index += 1) {
    const frame = opener.open(stored, offset, index)
    if (frame.table) throw new SealRefusedError('frame-shape', what, { index })
    plaintexts.push(frame.plaintext)
    offset = frame.end
    if (frame.last) break
  }
  if (offset !== stored.length) throw new SealRefusedError('trailing-bytes', what, { bytes: stored.length - offset })
  if (plaintexts.length === 1 && plaintexts[0] !== undefined) return plaintexts[0]
  const whole = Buffer.concat(plaintexts)
  for (const plaintext of plaintexts) freeBuffer(plaintext)
  return whole
}

/** Seals a pipe, a frame at a time. The last frame is only written once `source` has ended without an error. */
export async function* sealPipe(source: AsyncIterable<Uint8Array>, options: SealOptions): AsyncGenerator<Buffer> {
  const sealer = new StreamSealer(options)
  yield sealer.header.bytes
  const frame = Buffer.alloc(FRAME_BYTES)
  let filled = 0
  for await (const chunk of source) {
    let taken = 0
    while (taken < chunk.length) {
      if (filled === FRAME_BYTES) {
        yield* sealer.seal(frame).parts
        filled = 0
      }
      const part = chunk.subarray(taken, taken + FRAME_BYTES - filled)
      frame.set(part, filled)
      filled += part.length
      taken += part.length
    }
  }
  yield* sealer.seal(frame.subarray(0, filled), { last: true, table: false }).parts
}

/**
 * Unseals a pipe. Each frame is authenticated before it is passed on, but only the end proves that nothing is missing:
 * a consumer must not act for good (COMMIT, rename) before the generator has finished without an error.
 *
 * @throws {SealRefusedError} truncated, when `source` ends early.
 */
export async function* unsealPipe(
  source: AsyncIterable<Uint8Array>,
  keyOf: (dataKeyId: string) => Uint8Array,
  expected: StreamIdentity | undefined,
  what: string,
): AsyncGenerator<Buffer> {
  await using reader = new PipeReader(source)
  const opener = new StreamOpener(await reader.read(HEADER_BYTES), keyOf, expected, what)
  for (let index = 0; ; index += 1) {
    const start = await reader.read(FRAME_HEADER_BYTES)
    const shape = frameShape(start, 0, opener.header, what)
    const rest = await reader.read(shape.end - FRAME_HEADER_BYTES)
    const frame = opener.open(Buffer.concat([start, rest]), 0, index)
    if (frame.table) throw new SealRefusedError('frame-shape', what, { index })
    yield frame.plaintext
    if (frame.last) break
  }
  if ((await reader.read(1)).length > 0) throw new SealRefusedError('trailing-bytes', what)
}

/** Reads exact lengths from a pipe; fewer bytes only where it ends. Disposal closes a pipe that was not read to its end. */
class PipeReader implements AsyncDisposable {
  readonly #source: AsyncIterator<Uint8Array>
  #held: Buffer[] = []
  #heldBytes = 0
  #ended = false

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#source = source[Symbol.asyncIterator]()
  }

  async read(length: number): Promise<Buffer> {
    while (this.#heldBytes < length && !this.#ended) {
      const next = await this.#source.next()
      if (next.done === true) {
        this.#ended = true
        break
      }
      this.#held.push(Buffer.from(next.value.buffer, next.value.byteOffset, next.value.byteLength))
      this.#heldBytes += next.value.length
    }
    const [only] = this.#held
    // A large chunk is cut up as it lies, not copied for every frame in it.
    const all = this.#held.length === 1 && only !== undefined ? only : Buffer.concat(this.#held)
    const taken = all.subarray(0, length)
    this.#held = taken.length === all.length ? [] : [all.subarray(taken.length)]
    this.#heldBytes = all.length - taken.length
    return taken
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // What a pipe says on being closed early must not hide why it was.
    if (!this.#ended) await this.#source.return?.().catch(() => {})
  }
}
