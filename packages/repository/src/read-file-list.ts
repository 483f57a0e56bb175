/** The file list of a backup, part by part: authenticated, decoded, never held whole. */
import { createHash } from 'node:crypto'
import { unsealBytes } from '@tidemark/crypto'
import { freeBuffer } from '@tidemark/kernel'
import { ObjectNotFoundError } from '@tidemark/storage'
import { BackupIncompleteError, DocumentDamagedError } from './errors.ts'
import { ClusterLayout, fileListName } from './layout.ts'
import { type FileEntry, decodeFileEntries } from './packs/file-list.ts'
import type { CommitRecord } from './records/documents.ts'
import type { PackTable } from './records/pack-table.ts'
import type { Repository } from './set/repository.ts'

/** @throws {BackupIncompleteError} @throws {DocumentDamagedError} @throws {SealRefusedError} @throws {UnknownDataKeyError} */
export async function* readFileList(
  repository: Repository,
  record: CommitRecord,
  table: PackTable,
  keyOf: (dataKeyId: string) => Uint8Array,
  signal: AbortSignal,
): AsyncGenerator<FileEntry> {
  const base = new ClusterLayout(record.cluster, record.systemId).base(record.backupId)
  for (const [i, part] of table.fileList.entries()) {
    if (part.name !== fileListName(i + 1))
      throw new DocumentDamagedError(
        `the pack table of backup ${record.backupId}`,
        `${part.name} is part ${i + 1} of its file list`,
      )
    const what = `${part.name} of backup ${record.backupId} in ${repository.name}`
    const stored = await getPart(repository, base + part.name, part.bytes, record.backupId, what, signal)
    if (createHash('sha256').update(stored).digest('hex') !== part.sha256)
      throw new DocumentDamagedError(what, 'its SHA-256 is not the recorded one')
    const identity = { kind: 'file-list', backupId: record.backupId, ordinal: i + 1 } as const
    const plaintext = unsealBytes(stored, keyOf, identity, what)
    freeBuffer(stored)
    try {
      for (const entry of decodeFileEntries(plaintext, what)) {
        checkExtents(entry, table, what)
        yield entry
      }
    } finally {
      freeBuffer(plaintext)
    }
  }
}

function checkExtents(entry: FileEntry, table: PackTable, what: string): void {
  for (const { pack } of entry.extents) {
    if (pack >= table.packs.length)
      throw new DocumentDamagedError(what, `${entry.path} names pack ${pack} of ${table.packs.length}`)
  }
}

async function getPart(
  repository: Repository,
  name: string,
  maxBytes: number,
  backupId: string,
  what: string,
  signal: AbortSignal,
): Promise<Buffer> {
  try {
    return await repository.store.get(name, { signal, maxBytes })
  } catch (error) {
    if (error instanceof ObjectNotFoundError) throw new BackupIncompleteError(backupId, what, error)
    throw error
  }
}
