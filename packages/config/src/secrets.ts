/** Looks secrets up where the file says they are. Reads files; prints nothing. */
import { readFileSync, statSync } from 'node:fs'
import { Redacted } from '@tidemark/kernel'
import type { ConfigProblem } from './errors.ts'
import type { SecretReference } from './fields.ts'

export type Environment = Readonly<Record<string, string | undefined>>

export class SecretLookup {
  readonly problems: ConfigProblem[] = []
  readonly warnings: string[] = []
  readonly #env: Environment

  constructor(env: Environment) {
    this.#env = env
  }

  /**
   * @param missing 'problem' where this process cannot work without it, 'ignore' where another
   *   process uses it. A file that exists but is empty is a problem in both cases.
   */
  find(
    place: string,
    reference: SecretReference | undefined,
    missing: 'problem' | 'ignore',
  ): Redacted<string> | undefined {
    if (reference === undefined) return undefined
    if ('env' in reference) {
      const value = this.#env[reference.env]
      if (value !== undefined && value !== '') return new Redacted(value)
      if (missing === 'problem')
        this.problems.push({ place, problem: `environment variable ${reference.env} is not set` })
      return undefined
    }
    return this.#fromFile(place, reference.file, missing)
  }

  #fromFile(place: string, file: string, missing: 'problem' | 'ignore'): Redacted<string> | undefined {
    try {
      const { mode } = statSync(file)
      // One trailing newline is the editor's, not the secret's.
      const value = readFileSync(file, 'utf8').replace(/\r?\n$/, '')
      if ((mode & 0o004) !== 0) this.warnings.push(`${place}: ${file} is readable by everybody; chmod 600 it`)
      if (value !== '') return new Redacted(value)
      this.problems.push({ place, problem: `${file} is empty` })
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code ?? 'unknown error'
      if (missing === 'problem') this.problems.push({ place, problem: `${file} cannot be read (${code})` })
    }
    return undefined
  }
}
