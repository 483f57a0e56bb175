import type { RestoreResult } from '@tidemark/contracts'
import type { ReportProgress } from '@tidemark/kernel'
import { type RestorePlan, type RestoreRequest, planRestore } from '../restore/plan-restore.ts'
import { restoreBackup } from '../restore/restore-backup.ts'
import { type ConfiguredDeps, openConfiguredSet, repositoryNames, requireAllForLatest } from './open-configured-set.ts'

type Deps = ConfiguredDeps & { readonly progress: ReportProgress }

/** planRestore over the repositories of tidemark.yaml. */
export async function planConfigured(request: RestoreRequest, deps: Deps): Promise<RestorePlan> {
  await using opened = await openConfiguredSet(namesFor(request, deps), 'read', deps)
  requireAllForLatest(request.backup, request.repository, opened)
  const { keyring } = await opened.openKeys()
  const { logger, signal, clock, config } = deps
  const estimate = { clock, threads: config.backup.threads }
  return await planRestore(request, { set: opened.set, keyring, logger, signal, estimate })
}

/** Plans and carries out. @throws what planRestore and restoreBackup throw. */
export async function restoreConfigured(request: RestoreRequest, deps: Deps): Promise<RestoreResult> {
  const { config, clock, logger, signal, progress } = deps
  await using opened = await openConfiguredSet(namesFor(request, deps), 'read', deps)
  requireAllForLatest(request.backup, request.repository, opened)
  const { keyring } = await opened.openKeys()
  progress({ phase: 'plan', bytesDone: 0 })
  const plan = await planRestore(request, { set: opened.set, keyring, logger, signal })
  const outcome = await restoreBackup(plan, {
    keyring,
    threads: config.backup.threads,
    clock,
    logger,
    signal,
    progress,
  })
  const { walSegments: _, ...result } = outcome
  return result
}

function namesFor(request: RestoreRequest, deps: Deps): readonly string[] {
  return repositoryNames(
    deps.config,
    request.cluster,
    request.repository === undefined ? undefined : [request.repository],
  )
}
