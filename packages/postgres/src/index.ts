export type { ConnectionTarget } from './connection-target.ts'
export {
  AuthenticationFailedError,
  ConnectionLostError,
  DatabaseUnreachableError,
  PostgresFileInvalidError,
  ReplicationRightMissingError,
  ServerError,
  ServerMismatchError,
  ServerShutdownError,
  SlotsExhaustedError,
  StandbyRefusedError,
  StreamMalformedError,
  SyncStandbyRefusedError,
  TlsFailedError,
  TooManyConnectionsError,
  WalRemovedError,
  WalSendersExhaustedError,
  WalStalledError,
  WalStreamEndedError,
} from './errors.ts'
export { connect } from './connection.ts'
export type { SqlConnection } from './connection.ts'
export { connectReplication } from './replication-connection.ts'
export type { ReplicationConnection, SystemIdentity } from './replication-connection.ts'
export { PreflightFailedError, preflight } from './preflight.ts'
export type { PreflightOptions, PreflightResult } from './preflight.ts'
export type { Finding } from './preflight-checks.ts'
export type { DatabaseFacts, RestoreMinima, ServerFacts, TablespaceFacts } from './server-facts.ts'
export { runBaseBackup } from './base-backup.ts'
export type { BaseBackupOptions } from './base-backup.ts'
export type {
  BackupFile,
  BackupTablespace,
  BaseBackupEnd,
  BaseBackupSink,
  BaseBackupStart,
  ServerNotice,
} from './base-backup-sink.ts'
export { openWalStream } from './open-wal-stream.ts'
export type { WalStream, WalStreamEnd, WalStreamOptions, WalStreamStart } from './wal-stream.ts'
export { readTimelineHistory } from './timeline-history.ts'
export type { TimelineHistoryFile } from './timeline-history.ts'
export type { WalSegment } from './segment-assembler.ts'
export { parseControlFile } from './control-file.ts'
export type { ClusterState, ControlFile } from './control-file.ts'
export { ManifestParser, readBackupManifest } from './backup-manifest.ts'
export type { ManifestFile, ManifestSummary, ManifestWalRange } from './backup-manifest.ts'
export { formatTablespaceMap, parseBackupLabel, parseTablespaceMap } from './backup-label.ts'
export type { BackupLabel, TablespaceMapping } from './backup-label.ts'
export {
  appendSettings,
  parseServerConfig,
  parseSettingLine,
  quoteSetting,
  recoverySettings,
  removeSettings,
} from './server-config.ts'
export type { SettingLine } from './server-config.ts'
export { crc32c } from './crc32c.ts'
export { WalRecordScanner } from './wal-scan/wal-record-scanner.ts'
export type { WalRecord, WalRecordScannerOptions } from './wal-scan/wal-record-scanner.ts'
export { TablespaceWatch, scanTablespaceChanges } from './wal-scan/tablespace-changes.ts'
export type { TablespaceChange } from './wal-scan/tablespace-changes.ts'
export { readSourceDetails } from './source-details.ts'
export type { ConfigurationFile, SourceDetails } from './source-details.ts'
