/** What every command works with. One per run of the program. */
import { type Config, loadConfig } from '@tidemark/config'
import { type Logger, type ReportProgress, systemClock } from '@tidemark/kernel'
import { createLogger } from '@tidemark/observability'
import type { ConfiguredDeps } from '@tidemark/operations'
import { showProgress } from './progress-bar.ts'

export interface GlobalOptions {
  readonly config?: string
  readonly json?: true
  readonly repositoryUrl?: string
  readonly endpoint?: string
  readonly region?: string
  readonly caFile?: string
  readonly verbose?: true
}

export class CliContext {
  readonly json: boolean
  readonly signal: AbortSignal
  readonly #options: GlobalOptions
  #config: Config | undefined

  constructor(options: GlobalOptions, signal: AbortSignal) {
    this.#options = options
    this.json = options.json === true
    this.signal = signal
  }

  /** @throws {ConfigInvalidError} */
  get config(): Config {
    this.#config ??= this.#load('stores')
    return this.#config
  }

  /** For commands that open databases themselves. @throws {ConfigInvalidError} their passwords must be found, too. */
  get databaseDeps(): ConfiguredDeps {
    return { ...this.deps, config: this.#load('required') }
  }

  /** For commands that only talk to the API: secrets of databases and repositories need not be here. */
  get clientConfig(): Config {
    return this.#config ?? this.#load('optional')
  }

  get logger(): Logger {
    return createLogger({ name: 'tidemark', level: this.#options.verbose === true ? 'debug' : 'silent' })
  }

  get deps(): ConfiguredDeps {
    const { config, logger, signal } = this
    return { config, logger, signal, clock: systemClock, host: config.workers.restore.host }
  }

  /** Runs `work` with a progress display that is taken away before anything else is printed. */
  async withProgress<T>(work: (report: ReportProgress) => Promise<T>): Promise<T> {
    if (this.json) return work(() => {})
    using display = showProgress()
    return await work(display.report)
  }

  #load(secrets: 'required' | 'stores' | 'optional'): Config {
    const { config, repositoryUrl } = this.#options
    if (repositoryUrl !== undefined)
      return loadConfig({ path: 'the command line', text: this.#breakGlass(repositoryUrl) })
    return loadConfig({ secrets, ...(config === undefined ? {} : { path: config }) })
  }

  /** A bucket and a key are enough: the configuration that `--repository-url` stands for. S3 credentials come from the AWS environment. */
  #breakGlass(url: string): string {
    const { endpoint, region, caFile } = this.#options
    const repository = url.startsWith('file:') ? { url, shared: true } : { url, endpoint, region, caFile }
    return JSON.stringify({ repositories: { given: repository } })
  }
}
