import type { BackupOptions, BackupResult } from '@tidemark/contracts'
import type { ReportProgress } from '@tidemark/kernel'
import { takeBaseBackup } from '../backup/take-base-backup.ts'
import { WRITER_VERSION } from '../writer-version.ts'
import { findPrimary } from './connection-target.ts'
import { type ConfiguredDeps, openConfiguredSet, repositoryNames, requireName } from './open-configured-set.ts'

export interface BackupClusterRequest {
  readonly cluster: string
  readonly operationId: string
  readonly requestedAt: Date
  readonly options: BackupOptions
}

/** takeBaseBackup for a cluster of tidemark.yaml. @throws what that, findPrimary and openConfiguredSet throw. */
export async function backupCluster(
  request: BackupClusterRequest,
  deps: ConfiguredDeps & { readonly progress: ReportProgress },
): Promise<BackupResult> {
  const { config, clock, logger, signal, progress } = deps
  const { cluster, options } = request
  const startedMs = clock.monotonicMs()
  requireName(config, 'cluster', cluster)
  await using opened = await openConfiguredSet(repositoryNames(config, cluster, options.repositories), 'write', deps)
  const keys = await opened.openKeys()
  const own = config.clusters[cluster]
  if (own === undefined) throw new RangeError('a cluster that was there a moment ago')
  const { connectTimeoutMs, ...patience } = deps.patience?.server ?? {}
  const target = { ...(await findPrimary(config, cluster, signal)), connectTimeoutMs }
  const { threads, uploads, packBytes } = config.backup
  const committed = await takeBaseBackup(
    {
      cluster,
      target,
      operationId: request.operationId,
      requestedAt: request.requestedAt,
      checkpoint: options.checkpoint ?? own.backup.checkpoint,
      maxRateKiB: options.maxRateKiB ?? own.backup.maxRateKiB,
      label: options.label,
      sealing: {
        suite: config.encryption.suite,
        threads,
        uploads,
        packBytes,
        compressionLevel: options.compressionLevel ?? own.backup.compressionLevel,
      },
      hooks: own.hooks,
      patience,
    },
    { set: opened.set, keys, clock, logger, signal, progress, writerVersion: WRITER_VERSION },
  )
  const { record } = committed
  return {
    backupId: record.backupId,
    cluster,
    verdict: record.verdict,
    startLsn: record.startLsn,
    stopLsn: record.stopLsn,
    timeline: record.timeline,
    bytes: record.totals.bytes,
    storedBytes: record.totals.storedBytes,
    files: record.totals.files,
    durationMs: Math.round(clock.monotonicMs() - startedMs),
    repositories: [
      ...committed.repositories.map(({ name, outcome }) => ({ name, outcome })),
      ...opened.unavailable.map(({ name }) => ({ name, outcome: 'dropped' as const })),
    ],
  }
}
