import { StreamMalformedError } from './errors.ts'
import type { ReplicationConnection } from './replication-connection.ts'

/** A timeline's history file as the server has it. */
export interface TimelineHistoryFile {
  readonly filename: string
  readonly bytes: Buffer
}

/** TIMELINE_HISTORY on any replication connection. @throws {WalRemovedError} the server has no such file. */
export async function readTimelineHistory(
  connection: ReplicationConnection,
  timeline: number,
): Promise<TimelineHistoryFile> {
  const [row] = await connection.command(`TIMELINE_HISTORY ${timeline}`)
  const filename = row?.['filename']
  const content = row?.['content']
  if (!filename || content === null || content === undefined) throw new StreamMalformedError('TIMELINE_HISTORY')
  // pg decodes rows as UTF-8; a restore point named in another encoding would not survive that.
  if (content.includes('\uFFFD')) throw new StreamMalformedError('a history file that is not UTF-8', { filename })
  return { filename, bytes: Buffer.from(content, 'utf8') }
}
