export * from './errors.ts'
export { takeBaseBackup } from './backup/take-base-backup.ts'
export type { BackupRequest } from './backup/take-base-backup.ts'
export { planRestore } from './restore/plan-restore.ts'
export type { RestorePlan, RestoreRequest } from './restore/plan-restore.ts'
export { restoreBackup } from './restore/restore-backup.ts'
export type { RestoreOutcome } from './restore/restore-backup.ts'
export type { RestoreProfile } from './restore/recovery-config.ts'
export { RestoreSpool } from './restore/spool/restore-spool.ts'
export { SpooledJoin } from './spool/spooled-join.ts'
export type { Owner, TargetMode } from './restore/target-facts.ts'
export type { TablespaceMapping } from './restore/plan-tablespaces.ts'
export { verifyBackup } from './verify/verify-backup.ts'
export type { VerifyLevel, VerifyOutcome } from './verify/verify-backup.ts'
export { findPrimary } from './configured/connection-target.ts'
export {
  keysOf,
  openConfiguredSet,
  openConfiguredStore,
  repositoryNames,
  requireName,
} from './configured/open-configured-set.ts'
export type { ConfiguredDeps, ConfiguredSet } from './configured/open-configured-set.ts'
export type { Patience } from './patience.ts'
export { backupCluster } from './configured/backup-cluster.ts'
export { planConfigured, restoreConfigured } from './configured/restore-configured.ts'
export { verifyConfigured } from './configured/verify-configured.ts'
export { copyConfigured } from './configured/copy-configured.ts'
export { sweepConfigured } from './configured/sweep-configured.ts'
export { listSet, statusOfSet } from './configured/list-configured.ts'
export type { SetBackup } from './configured/list-configured.ts'
export { copyBackup } from './copy/copy-backup.ts'
export { sweepRepository } from './sweep/sweep-repository.ts'
