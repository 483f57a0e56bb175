import type { VerifyResult } from '@tidemark/contracts'
import type { ReportProgress } from '@tidemark/kernel'
import { type VerifyLevel, verifyBackup } from '../verify/verify-backup.ts'
import { type ConfiguredDeps, openConfiguredSet, repositoryNames, requireAllForLatest } from './open-configured-set.ts'

export interface VerifyConfiguredRequest {
  readonly backup: string
  /** Undefined: any cluster that has this backup. */
  readonly cluster: string | undefined
  readonly repository: string | undefined
  readonly level: VerifyLevel
}

/** verifyBackup over the repositories of tidemark.yaml. The outcome tells of damage; see verifyBackup for what it throws. */
export async function verifyConfigured(
  request: VerifyConfiguredRequest,
  deps: ConfiguredDeps & { readonly progress: ReportProgress },
): Promise<VerifyResult> {
  const { config, logger, signal, progress } = deps
  const names = repositoryNames(
    config,
    request.cluster,
    request.repository === undefined ? undefined : [request.repository],
  )
  await using opened = await openConfiguredSet(names, 'read', deps)
  requireAllForLatest(request.backup, request.repository, opened)
  const keyring = request.level === 'contents' ? (await opened.openKeys()).keyring : undefined
  const outcome = await verifyBackup(request, {
    set: opened.set,
    keyring,
    threads: config.backup.threads,
    logger,
    signal,
    progress,
  })
  const { backupId, level } = outcome
  return {
    backupId,
    level,
    repositories: [
      ...outcome.repositories.map((verdict) => ({ ...verdict, problems: [...verdict.problems] })),
      // One that must hold it and does not answer is no good news.
      ...opened.unavailable
        .filter(({ name }) => config.repositories[name]?.required === true)
        .map(({ name, problem }) => ({
          name,
          packs: 0,
          bytes: 0,
          files: 0,
          ok: false,
          problems: [`not available: ${problem.code}: ${problem.message}`],
        })),
    ],
  }
}
