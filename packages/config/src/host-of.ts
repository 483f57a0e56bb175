import type { Config } from './config.ts'

/**
 * The host whose workers must carry out work on these repositories: the owner of a `file://`
 * repository that is not shared. Undefined when any worker will do.
 *
 * @param cluster undefined: all repositories there are. @param repositories default: all of the cluster's. Names not configured are ignored.
 */
export function hostOf(
  config: Pick<Config, 'clusters' | 'repositories'>,
  cluster: string | undefined,
  repositories?: readonly string[],
): string | undefined {
  for (const name of repositories ??
    (cluster === undefined ? Object.keys(config.repositories) : config.clusters[cluster]?.repositories) ??
    []) {
    const repository = config.repositories[name]
    if (repository?.kind === 'file' && repository.host !== undefined) return repository.host
  }
  return undefined
}
