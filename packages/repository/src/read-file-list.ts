/** The file list of a backup, part by part: authenticated, decoded, never held whole. */
import { unsealBytes } from '@tidemark/crypto'
import { freeBuffer } from '@tidemark/kernel'
import { DocumentDamagedError } from './errors.ts'
import { fileListName } from './layout.ts'
import { readRecorded } from './read-recorded.ts'
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
  for (const [i, part] of table.fileList.entries()) {
    if (part.name !== fileListName(i + 1))
      throw new DocumentDamagedError(
        `the pack table of backup ${record.backupId}`,
        `${part.name} is part ${i + 1} of its file list`,
      )
    const what = `${part.name} of backup ${record.backupId} in ${repository.name}`
    const stored = await readRecorded(repository, record, part, what, signal)
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
