import type { EventEmitter } from 'node:events'
import type { Socket } from 'node:net'
import type { Client } from 'pg'

/**
 * The part of pg's Connection (node_modules/pg/lib/connection.js) that replication needs and that
 * its type package leaves out. Everything here is emitted or callable in pg 8.23.
 *
 * A fact to know before touching `copyData`: its chunk is a view into the parser's buffer, which is
 * overwritten as soon as the socket is read again. Whoever needs the bytes longer keeps the socket
 * paused or copies them.
 */
export interface Wire extends EventEmitter {
  readonly stream: Socket
  query(text: string): void
  sendCopyFromChunk(chunk: Buffer): void
  endCopyFrom(): void
}

export function wireOf(client: Client): Wire {
  return client.connection as unknown as Wire
}

/** The keys that let another connection cancel this one's command. */
export function cancelKeyOf(client: Client): { processId: number; secretKey: number } {
  const { processID, secretKey } = client as unknown as { processID: number; secretKey: number }
  return { processId: processID, secretKey }
}
