import type { Readable } from 'node:stream'

/** The connection gave fewer or more bytes than it announced. Carries an errno so that it counts as a cut connection. */
class BodyLengthError extends Error {
  readonly code = 'ECONNRESET'
}

/**
 * All of a response body, into one buffer of the announced length.
 *
 * @param length Content-Length; undefined for a chunked body, whose end the HTTP parser checks.
 */
export async function readBody(body: Readable, length: number | undefined, signal: AbortSignal): Promise<Buffer> {
  const stop = (): void => void body.destroy(new Error('withdrawn'))
  if (signal.aborted) stop()
  signal.addEventListener('abort', stop, { once: true })
  try {
    if (length === undefined) {
      const chunks: Buffer[] = []
      for await (const chunk of body) chunks.push(chunk as Buffer)
      return Buffer.concat(chunks)
    }
    const result = Buffer.allocUnsafe(length)
    let filled = 0
    for await (const chunk of body as AsyncIterable<Buffer>) {
      if (filled + chunk.length > length) throw new BodyLengthError(`more than the announced ${length} bytes`)
      filled += chunk.copy(result, filled)
    }
    if (filled !== length) throw new BodyLengthError(`${filled} of ${length} bytes arrived`)
    return result
  } finally {
    signal.removeEventListener('abort', stop)
    body.destroy()
  }
}
