/** The sealed document about the database system that a backup was taken from. */
import { createHash } from 'node:crypto'
import { unsealBytes } from '@tidemark/crypto'
import { ObjectNotFoundError } from '@tidemark/storage'
import { BackupIncompleteError, DocumentDamagedError } from './errors.ts'
import { ClusterLayout } from './layout.ts'
import { type CommitRecord, parseJsonDocument } from './records/documents.ts'
import type { PackTable } from './records/pack-table.ts'
import { type SourceDocument, sourceDocumentSchema } from './records/source-document.ts'
import type { Repository } from './set/repository.ts'

/** @throws {BackupIncompleteError} @throws {DocumentDamagedError} @throws {SealRefusedError} @throws {UnknownDataKeyError} */
export async function readSource(
  repository: Repository,
  record: CommitRecord,
  table: PackTable,
  keyOf: (dataKeyId: string) => Uint8Array,
  signal: AbortSignal,
): Promise<SourceDocument> {
  const { name, bytes: maxBytes, sha256, streamId } = table.source
  const what = `the source document of backup ${record.backupId} in ${repository.name}`
  let stored: Buffer
  try {
    const base = new ClusterLayout(record.cluster, record.systemId).base(record.backupId)
    stored = await repository.store.get(base + name, { signal, maxBytes })
  } catch (error) {
    if (error instanceof ObjectNotFoundError) throw new BackupIncompleteError(record.backupId, what, error)
    throw error
  }
  if (createHash('sha256').update(stored).digest('hex') !== sha256)
    throw new DocumentDamagedError(what, 'its SHA-256 is not the recorded one')
  const document = parseJsonDocument(
    sourceDocumentSchema,
    unsealBytes(stored, keyOf, { kind: 'other', streamId }, what),
    what,
  )
  if (document.backupId !== record.backupId) throw new DocumentDamagedError(what, 'it is of another backup')
  return document
}
