/**
 * Server-sent events of one operation (https://html.spec.whatwg.org/multipage/server-sent-events.html).
 *
 * Each event is a whole snapshot, so a client that missed some has lost nothing. The event id is a
 * digest of the snapshot: a client that comes back with Last-Event-ID is not sent what it has. The
 * stream ends after the terminal snapshot; coming back after that is answered 204, which tells an
 * EventSource to stop.
 */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import type { Operation } from '@tidemark/contracts'

export function eventId(operation: Operation): string {
  return createHash('sha256').update(JSON.stringify(operation)).digest('base64url').slice(0, 16)
}

export interface StreamOptions {
  readonly lastEventId: string | undefined
  readonly heartbeatMs: number
  readonly signal: AbortSignal
}

/** Writes until the snapshots end or `signal` fires, then ends the response. */
export async function streamOperation(
  response: ServerResponse,
  snapshots: AsyncIterable<Operation>,
  { lastEventId, heartbeatMs, signal }: StreamOptions,
): Promise<void> {
  response.writeHead(200, {
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-store',
    // Kept alive, an ended stream would hold up the server's shutdown for the keep-alive timeout.
    connection: 'close',
    'x-accel-buffering': 'no',
    'x-content-type-options': 'nosniff',
  })
  response.write('retry: 3000\n\n')
  // Comments keep proxies from closing a quiet stream, and find out that a client has gone.
  const heartbeat = setInterval(() => response.write(': still here\n\n'), heartbeatMs)
  try {
    let known = lastEventId
    for await (const operation of snapshots) {
      const id = eventId(operation)
      if (id === known) continue
      known = undefined
      const event = `id: ${id}\nevent: operation\ndata: ${JSON.stringify(operation)}\n\n`
      if (!response.write(event)) await once(response, 'drain', { signal })
    }
  } finally {
    clearInterval(heartbeat)
    response.end()
  }
}
