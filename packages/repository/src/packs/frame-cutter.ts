/**
 * Cuts files into frames and notes where each piece went.
 *
 * A file of 256 KiB or more has frames of its own, cut at multiples of 1 MiB of the file, so that the same file gives the
 * same frames again however its neighbours changed. Smaller ones share a frame and are never split.
 * Entries leave in the order the files came, each once all its frames have a place.
 */
import { FRAME_BYTES } from '@tidemark/crypto'
import type { FileEntry } from './file-list.ts'
import type { FrameLocation, PackWriter } from './pack-writer.ts'

const OWN_FRAME_FROM = FRAME_BYTES / 4
/** Pieces that may wait for one that stands before them in a shared frame: 4 GiB of large files. */
const MAX_WAITING_PIECES = 4096

/** A frame being filled. */
interface OpenFrame {
  readonly buffer: ArrayBuffer
  readonly bytes: Uint8Array
  used: number
  readonly place: { at?: FrameLocation }
}

interface Piece {
  readonly fileOffset: number
  length: number
  readonly frameOffset: number
  readonly place: { at?: FrameLocation }
}

/** `size` is what was announced; undefined where only the end tells (the manifest): such a file has frames of its own. */
export type FileHead = Omit<FileEntry, 'extents' | 'size'> & { readonly size: number | undefined }

export class FrameCutter {
  readonly #packs: PackWriter
  readonly #emit: (entry: FileEntry) => void
  readonly #pending: { readonly head: FileHead; readonly pieces: Piece[]; size: number; ended: boolean }[] = []
  #shared: OpenFrame | undefined
  #own: OpenFrame | undefined
  #written = 0
  #waitingPieces = 0

  /** @param emit takes each finished entry; extents name packs by their number in the pack table. */
  constructor(packs: PackWriter, emit: (entry: FileEntry) => void) {
    this.#packs = packs
    this.#emit = emit
  }

  beginFile(head: FileHead): void {
    this.#pending.push({ head, pieces: [], size: 0, ended: false })
    this.#written = 0
    if (this.#ownFrames() || this.#shared === undefined) return
    if (this.#shared.used + (head.size ?? 0) > FRAME_BYTES) this.#flushShared()
  }

  /** Copies `chunk`; it may be reused once this has returned undefined, or the promise has resolved. */
  write(chunk: Uint8Array): Promise<void> | undefined {
    let rest = chunk
    while (rest.length > 0) {
      const frame = this.#openFrame()
      if (frame === undefined) return this.#writeWaiting(rest)
      rest = this.#fill(frame, rest)
    }
    return undefined
  }

  /** @throws {RangeError} when the file was not as long as announced. */
  endFile(): void {
    const file = this.#pending.at(-1)
    if (file === undefined || file.ended) throw new RangeError('no file is open')
    const announced = file.head.size
    if (announced !== undefined && this.#written !== announced) {
      throw new RangeError(`${file.head.path}: ${this.#written} bytes came, ${announced} were announced`)
    }
    this.#flushOwn()
    file.size = this.#written
    file.ended = true
    this.#drain()
    // Behind a small file in a frame that does not fill, the entries of all large ones would pile up.
    if (this.#waitingPieces > MAX_WAITING_PIECES) this.#flushShared()
  }

  /** Hands over what is left. All entries are out once the pack writer has finished. */
  finish(): void {
    this.#flushShared()
    this.#drain()
  }

  get unfinished(): number {
    return this.#pending.length
  }

  async #writeWaiting(chunk: Uint8Array): Promise<void> {
    let rest = chunk
    while (rest.length > 0) {
      const frame = this.#openFrame() ?? this.#adopt(await this.#packs.frame())
      rest = this.#fill(frame, rest)
    }
  }

  #ownFrames(): boolean {
    return (this.#pending.at(-1)?.head.size ?? OWN_FRAME_FROM) >= OWN_FRAME_FROM
  }

  #openFrame(): OpenFrame | undefined {
    const open = this.#ownFrames() ? this.#own : this.#shared
    if (open !== undefined) return open
    const buffer = this.#packs.tryFrame()
    return buffer === undefined ? undefined : this.#adopt(buffer)
  }

  #adopt(buffer: ArrayBuffer): OpenFrame {
    const frame: OpenFrame = { buffer, bytes: new Uint8Array(buffer), used: 0, place: {} }
    if (this.#ownFrames()) this.#own = frame
    else this.#shared = frame
    return frame
  }

  #fill(frame: OpenFrame, chunk: Uint8Array): Uint8Array {
    const file = this.#pending.at(-1)
    if (file === undefined || file.ended) throw new RangeError('no file is open')
    const part = chunk.subarray(0, FRAME_BYTES - frame.used)
    if (this.#written + part.length > (file.head.size ?? Infinity))
      throw new RangeError(`${file.head.path}: more bytes came than announced`)
    frame.bytes.set(part, frame.used)
    const last = file.pieces.at(-1)
    if (last !== undefined && last.place === frame.place) last.length += part.length
    else {
      file.pieces.push({ fileOffset: this.#written, length: part.length, frameOffset: frame.used, place: frame.place })
      this.#waitingPieces += 1
    }
    frame.used += part.length
    this.#written += part.length
    if (frame.used === FRAME_BYTES) {
      if (frame === this.#own) this.#flushOwn()
      else this.#flushShared()
    }
    return chunk.subarray(part.length)
  }

  #flushOwn(): void {
    const frame = this.#own
    this.#own = undefined
    if (frame !== undefined) this.#seal(frame)
  }

  #flushShared(): void {
    const frame = this.#shared
    this.#shared = undefined
    if (frame !== undefined) this.#seal(frame)
  }

  #seal(frame: OpenFrame): void {
    this.#packs.seal(frame.buffer, frame.used, (location) => {
      frame.place.at = location
      this.#drain()
    })
  }

  #drain(): void {
    for (;;) {
      const [first] = this.#pending
      if (first === undefined || !first.ended) return
      const extents = []
      for (const { fileOffset, length, frameOffset, place } of first.pieces) {
        if (place.at === undefined) return
        extents.push({ fileOffset, length, pack: place.at.pack, frame: place.at.frame, frameOffset })
      }
      this.#pending.shift()
      this.#waitingPieces -= first.pieces.length
      this.#emit({ ...first.head, size: first.size, extents })
    }
  }
}
