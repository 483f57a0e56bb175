export * from './errors.ts'
export { BACKUP_ID, CLUSTERS, CLUSTER_NAME, ClusterLayout, PACK_TABLE, compactTime, parseBeginName } from './layout.ts'
export { BackupWriter } from './backup-writer.ts'
export type { Committed, SealingSettings } from './backup-writer.ts'
export { packBufferBytes } from './packs/sealing-thread.ts'
export type { Extent, FileEntry } from './packs/file-list.ts'
export { FileListWriter } from './packs/file-list-writer.ts'
export { PackIndex, PACK_TAIL_BYTES } from './packs/pack-index.ts'
export { LEASE_MS, RENEW_EVERY_MS } from './attempt-lease.ts'
export { PackReader } from './packs/pack-reader.ts'
export { readFileList } from './read-file-list.ts'
export { beginSchema, parseDocument } from './records/documents.ts'
export type { CommitRecord, RecordedServer } from './records/documents.ts'
export { MAX_BYTES, maxWalBytes } from './records/bounds.ts'
export { encodePackTable } from './records/pack-table.ts'
export type { PackEntry, PackTable } from './records/pack-table.ts'
export { PackList } from './records/pack-list.ts'
export { compareListing, presentObjects } from './records/compare-listing.ts'
export { NO_SOURCE_FACTS, UNREAD_TABLESPACE_WAL } from './records/source-document.ts'
export type { SourceDocument, SourceFacts } from './records/source-document.ts'
export { readSource } from './read-source.ts'
export { findBackup } from './records/find-backup.ts'
export {
  listBackups,
  listRecordNames,
  newestRecordNames,
  readListed,
  readPackTable,
  readRecord,
  readRecordDocument,
  recordAt,
} from './records/read-records.ts'
export type { BackupPage, FoundBackup, ListedBackup, RecordAt, RecordName } from './records/read-records.ts'
export { holdsBytes, putProven, readBack } from './set/read-back.ts'
export { initRepositorySet, isOwnKeyring, openKeys, openRepositorySet, readKeyrings } from './set/repository.ts'
export type { OpenedKeys, Repository, RepositoryPlace, RepositorySet } from './set/repository.ts'
export { WalLayout, missingWal, readTimelineHistory, readWalSegment } from './wal/wal-store.ts'
