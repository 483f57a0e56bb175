import type { Readable } from 'node:stream'
import { bufferFor } from '../object-store.ts'

/** The connection gave fewer or more bytes than it announced. Carries an errno so that it counts as a cut connection. */
class BodyLengthError extends Error {
  readonly code = 'ECONNRESET'
}

export interface BodyBounds {
  /** Content-Length; undefined for a chunked body, whose end the HTTP parser checks. */
  readonly length: number | undefined
  readonly maxBytes: number
  readonly into: Uint8Array | undefined
  readonly tooLarge: (bytes: number) => Error
}

/**
 * Gives a chunk's memory back now instead of at some collection: at 16 KiB each, tens of megabytes would gather first.
 *
 * The HTTP parser hands out parts of what the socket has read. One that is all of it has no neighbours, and the parser is done with
 * it by the time that a stream's reader sees it.
 */
function release({ buffer, byteLength }: Buffer): void {
  if (buffer instanceof ArrayBuffer && byteLength === buffer.byteLength && byteLength > 0) buffer.transfer(0)
}

/** All of a response body, into one buffer: that of the caller, or one of the announced length. */
export async function readBody(body: Readable, bounds: BodyBounds, signal: AbortSignal): Promise<Buffer> {
  const { length, maxBytes, into, tooLarge } = bounds
  const stop = (): void => void body.destroy(new Error('withdrawn'))
  if (signal.aborted) stop()
  signal.addEventListener('abort', stop, { once: true })
  try {
    if (length === undefined) {
      const chunks: Buffer[] = []
      let bytes = 0
      for await (const chunk of body as AsyncIterable<Buffer>) {
        bytes += chunk.length
        if (bytes > maxBytes) throw tooLarge(bytes)
        chunks.push(chunk)
      }
      if (into === undefined) return Buffer.concat(chunks)
      const result = bufferFor(bytes, into)
      let filled = 0
      for (const chunk of chunks) filled += chunk.copy(result, filled)
      return result
    }
    const result = bufferFor(length, into)
    let filled = 0
    for await (const chunk of body as AsyncIterable<Buffer>) {
      if (filled + chunk.length > length) throw new BodyLengthError(`more than the announced ${length} bytes`)
      filled += chunk.copy(result, filled)
      release(chunk)
    }
    if (filled !== length) throw new BodyLengthError(`${filled} of ${length} bytes arrived`)
    return result
  } finally {
    signal.removeEventListener('abort', stop)
    body.destroy()
  }
}
