import { OperationalError } from '@tidemark/kernel'

export interface ConfigProblem {
  /** `clusters.main.nodes[0].port` or `env BACKUP_ENCRYPTION_KEY`. */
  readonly place: string
  /** Line in the file, where there is one. */
  readonly line?: number
  /** What is wrong and what is accepted; never the value itself, which may be a secret. */
  readonly problem: string
}

/** Everything that is wrong with the configuration, at once. */
export class ConfigInvalidError extends OperationalError {
  override readonly code = 'CONFIG_INVALID'
  override readonly retry = 'after-operator'
  readonly problems: readonly ConfigProblem[]

  constructor(path: string, problems: readonly ConfigProblem[]) {
    const lines = problems.map(({ place, line, problem }) => {
      return `  ${place}${line === undefined ? '' : ` (line ${line})`}: ${problem}`
    })
    super(`the configuration is not valid:\n${lines.join('\n')}`, {
      hint: `correct ${path} or the environment, then start again`,
      facts: { path, problems },
    })
    this.problems = problems
  }
}
