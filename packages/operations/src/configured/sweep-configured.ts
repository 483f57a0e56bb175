import type { SweepResult } from '@tidemark/contracts'
import { type OperationalError, OperationalError as Operational, type ReportProgress } from '@tidemark/kernel'
import { sweepRepository } from '../sweep/sweep-repository.ts'
import { type ConfiguredDeps, openConfiguredSet, repositoryNames } from './open-configured-set.ts'

export interface SweepConfiguredRequest {
  /** Undefined: all that this host may open. */
  readonly repositories: readonly string[] | undefined
  readonly cluster: string | undefined
  readonly dryRun: boolean
}

/**
 * sweepRepository over repositories of tidemark.yaml, one after the other. Needs no key.
 *
 * @throws what the first one that failed threw, after the others were swept.
 */
export async function sweepConfigured(
  request: SweepConfiguredRequest,
  deps: ConfiguredDeps & { readonly progress: ReportProgress },
): Promise<SweepResult> {
  const { cluster, dryRun } = request
  await using opened = await openConfiguredSet(
    repositoryNames(deps.config, cluster, request.repositories),
    'read',
    deps,
  )
  const repositories: SweepResult['repositories'] = []
  let first: OperationalError | undefined
  for (const repository of opened.set.repositories) {
    try {
      const outcome = await sweepRepository(
        repository,
        { cluster, dryRun },
        { ...deps, publicKey: opened.set.publicKey },
      )
      repositories.push({ ...outcome, folders: [...outcome.folders], kept: outcome.kept.slice(0, 1000) })
    } catch (error) {
      if (deps.signal.aborted || !(error instanceof Operational)) throw error
      first ??= error
      deps.logger.warn({ repository: repository.name, code: error.code, reason: error.message }, 'repository not swept')
    }
  }
  if (first !== undefined) throw first
  return { verb: 'sweep', dryRun, repositories, unavailable: opened.unavailable.map(({ name }) => name) }
}
