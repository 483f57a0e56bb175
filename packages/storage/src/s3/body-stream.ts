import { Readable } from 'node:stream'

const PIECE_BYTES = 256 * 1024

/**
 * Bytes as a stream of pieces. Given as a whole, TLS would encrypt them as a whole, into a second buffer of their size.
 *
 * The bytes are only lent: they must not change until the request has ended.
 */
export function bodyStream(bytes: Uint8Array): Readable {
  let offset = 0
  return new Readable({
    highWaterMark: PIECE_BYTES,
    read() {
      const piece = bytes.subarray(offset, offset + PIECE_BYTES)
      offset += piece.length
      this.push(piece.length === 0 ? null : piece)
    },
  })
}
