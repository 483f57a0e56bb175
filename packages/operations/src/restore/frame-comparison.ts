import { readSync } from 'node:fs'
import { timingSafeEqual } from 'node:crypto'
import { FRAME_BYTES, keyedDigest } from '@tidemark/crypto'
import type { ExtentRow } from './spool/extent-rows.ts'

/**
 * Does the target hold a frame's bytes already? Asked by the frame's keyed digest, so that nothing has to be fetched for the answer.
 *
 * The digest is of the whole frame. Where the extents do not make up all of it (a file was left out), or do so in another order, the
 * answer is no: the frame is then written again.
 */
export class FrameComparison {
  readonly #digestKey: Uint8Array
  readonly #frame = Buffer.allocUnsafeSlow(FRAME_BYTES)

  constructor(digestKey: Uint8Array) {
    this.#digestKey = digestKey
  }

  /**
   * @param rows all extents of the frame; a frame that several files share whole is there several times.
   * @param plaintextBytes the frame's length. @param descriptorOf a file's open descriptor, undefined where it cannot be read.
   */
  isSame(
    rows: readonly ExtentRow[],
    plaintextBytes: number,
    digest: Buffer,
    descriptorOf: (file: number) => number | undefined,
  ): boolean {
    let filled = 0
    for (const { length, frameOffset, file, fileOffset } of rows) {
      if (length === 0) continue
      if (frameOffset !== filled || filled + length > plaintextBytes) return false
      const descriptor = descriptorOf(file)
      if (descriptor === undefined || !readWhole(descriptor, this.#frame, filled, length, fileOffset)) return false
      filled += length
      if (filled < plaintextBytes) continue
      const found = keyedDigest(this.#digestKey, 'frame', this.#frame.subarray(0, filled))
      if (!timingSafeEqual(found, digest)) return false
      filled = 0
    }
    return filled === 0
  }
}

function readWhole(descriptor: number, into: Buffer, at: number, length: number, offset: number): boolean {
  let done = 0
  while (done < length) {
    const got = readSync(descriptor, into, at + done, length - done, offset + done)
    if (got === 0) return false
    done += got
  }
  return true
}
