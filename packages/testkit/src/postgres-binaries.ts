import { existsSync, readdirSync } from 'node:fs'
import { delimiter, join } from 'node:path'

const DEBIAN_ROOT = '/usr/lib/postgresql'

/**
 * The folder with PostgreSQL's server binaries.
 *
 * Order: env TIDEMARK_TEST_PG_BIN (only when no version is asked for), Debian's folder of that version
 * (15 unless said otherwise, else the newest there), PATH.
 */
export function findPostgresBin(version?: number): string {
  const installed = existsSync(DEBIAN_ROOT) ? readdirSync(DEBIAN_ROOT).toSorted((a, b) => Number(b) - Number(a)) : []
  const wanted = version === undefined ? ['15', ...installed] : [String(version)]
  const candidates = [
    ...(version === undefined ? [process.env['TIDEMARK_TEST_PG_BIN'] ?? ''] : []),
    ...wanted.map((name) => join(DEBIAN_ROOT, name, 'bin')),
    ...(version === undefined ? (process.env['PATH'] ?? '').split(delimiter) : []),
  ]
  const found = candidates.find((folder) => folder !== '' && existsSync(join(folder, 'initdb')))
  if (found === undefined) {
    throw new Error(`no PostgreSQL ${version ?? 15} server binaries found: apt-get install postgresql-${version ?? 15}`)
  }
  return found
}
