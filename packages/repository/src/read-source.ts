/** The sealed document about the database system that a backup was taken from. */
import { unsealBytes } from '@tidemark/crypto'
import { DocumentDamagedError } from './errors.ts'
import { readRecorded } from './read-recorded.ts'
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
  const what = `the source document of backup ${record.backupId} in ${repository.name}`
  const stored = await readRecorded(repository, record, table.source, what, signal)
  const plaintext = unsealBytes(stored, keyOf, { kind: 'other', streamId: table.source.streamId }, what)
  const document = parseJsonDocument(sourceDocumentSchema, plaintext, what)
  if (document.backupId !== record.backupId) throw new DocumentDamagedError(what, 'it is of another backup')
  return document
}
