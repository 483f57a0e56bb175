/** Objects of a backup whose size and SHA-256 its pack table records. */
import { createHash } from 'node:crypto'
import { ObjectNotFoundError } from '@tidemark/storage'
import { BackupIncompleteError, DocumentDamagedError } from './errors.ts'
import { ClusterLayout } from './layout.ts'
import type { CommitRecord } from './records/documents.ts'
import type { Repository } from './set/repository.ts'

/**
 * The stored bytes, never more than recorded and of the recorded SHA-256.
 *
 * @param what it is, for errors. @throws {BackupIncompleteError} @throws {DocumentDamagedError}
 */
export async function readRecorded(
  repository: Repository,
  { cluster, systemId, backupId }: CommitRecord,
  recorded: { readonly name: string; readonly bytes: number; readonly sha256: string },
  what: string,
  signal: AbortSignal,
): Promise<Buffer> {
  let stored: Buffer
  try {
    const name = new ClusterLayout(cluster, systemId).base(backupId) + recorded.name
    stored = await repository.store.get(name, { signal, maxBytes: recorded.bytes })
  } catch (error) {
    if (error instanceof ObjectNotFoundError) throw new BackupIncompleteError(backupId, what, error)
    throw error
  }
  if (createHash('sha256').update(stored).digest('hex') !== recorded.sha256)
    throw new DocumentDamagedError(what, 'its SHA-256 is not the recorded one')
  return stored
}
