/**
 * Which PostgreSQL server binaries tests run.
 *
 * Debian ships one version. The others come as npm packages (optional dependencies of this one): `postgres`, `initdb` and
 * `pg_ctl`, no client tools. As npm unpacks them they do not start: their sonames are links that an install script would
 * make, and install scripts are off here. And the OS user that a server runs as cannot reach a checkout below /root. So
 * a process that needs one copies it, with its links, into a folder that goes with the process.
 */
import { cpSync, existsSync, readFileSync, readdirSync, statSync, symlinkSync } from 'node:fs'
import { basename, delimiter, dirname, extname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { runTool } from './run-tool.ts'
import { TemporaryFolder } from './temporary-folder.ts'

const DEBIAN_ROOT = '/usr/lib/postgresql'
const SUPPORTED: readonly number[] = [15, 16, 17, 18]

/** The major versions that env TIDEMARK_TEST_PG names ("15,18"), else `otherwise`: by default all that Tidemark supports. */
export function testedPostgresVersions(otherwise: readonly number[] = SUPPORTED): readonly number[] {
  const asked = process.env['TIDEMARK_TEST_PG'] ?? ''
  if (asked.trim() === '') return otherwise
  const versions = asked.split(',').map((text) => Number(text.trim()))
  const unknown = versions.filter((version) => !SUPPORTED.includes(version))
  if (unknown.length > 0) throw new Error(`TIDEMARK_TEST_PG=${asked}: supported are ${SUPPORTED.join(', ')}`)
  return versions
}

/**
 * The folder with the server binaries of a major version.
 *
 * Order: Debian's folder of that version, what else is installed if it is of that version, the npm package; without a version env TIDEMARK_TEST_PG_BIN, the first version of env
 * TIDEMARK_TEST_PG, `findPostgresBin()`.
 */
export async function postgresBin(version?: number): Promise<string> {
  const [asked] = testedPostgresVersions([])
  const own = process.env['TIDEMARK_TEST_PG_BIN'] ?? ''
  const wanted = version ?? (own === '' ? asked : undefined)
  if (wanted === undefined) return findPostgresBin()
  const debian = join(DEBIAN_ROOT, String(wanted), 'bin')
  if (existsSync(join(debian, 'initdb'))) return debian
  const installed = installedBin()
  if (installed !== undefined && (await majorVersion(installed)) === wanted) return installed
  return await (unpacked.get(wanted) ?? unpack(wanted))
}

async function majorVersion(bin: string): Promise<number> {
  const { stdout } = await runTool(join(bin, 'postgres'), ['--version'])
  return Number(/ (\d+)/.exec(stdout)?.[1])
}

/** Binaries that are installed on this machine, client tools included: env TIDEMARK_TEST_PG_BIN, Debian's 15, else the newest there, PATH. */
export function findPostgresBin(): string {
  const found = installedBin()
  if (found === undefined) throw new Error('no PostgreSQL server binaries found: apt-get install postgresql-15')
  return found
}

function installedBin(): string | undefined {
  const installed = existsSync(DEBIAN_ROOT) ? readdirSync(DEBIAN_ROOT).toSorted((a, b) => Number(b) - Number(a)) : []
  const candidates = [
    process.env['TIDEMARK_TEST_PG_BIN'] ?? '',
    ...['15', ...installed].map((name) => join(DEBIAN_ROOT, name, 'bin')),
    ...(process.env['PATH'] ?? '').split(delimiter),
  ]
  return candidates.find((folder) => folder !== '' && existsSync(join(folder, 'initdb')))
}

/** One copy per version and process; the folder goes when the process ends, however it ends. */
const unpacked = new Map<number, Promise<string>>()

function unpack(version: number): Promise<string> {
  const copy = (async () => {
    const native = join(packageRoot(version), 'native')
    const folder = await TemporaryFolder.create(`postgres-${version}`)
    // Static libraries are a third of it, and nobody links here.
    cpSync(native, folder.path, { recursive: true, filter: (path) => extname(path) !== '.a' })
    const links = JSON.parse(readFileSync(join(native, 'pg-symlinks.json'), 'utf8')) as {
      source: string
      target: string
    }[]
    for (const { source, target } of links) {
      const at = folder.join(relative('native', target))
      if (existsSync(folder.join(relative('native', source))) && !existsSync(at)) {
        symlinkSync(relative(dirname(target), source), at)
      }
    }
    return folder.join('bin')
  })()
  unpacked.set(version, copy)
  return copy
}

function packageRoot(version: number): string {
  const name = `postgres-${version}-linux-${process.arch}`
  try {
    // Its one export is dist/index.js.
    const root = dirname(dirname(fileURLToPath(import.meta.resolve(name))))
    if (basename(root) === name && statSync(join(root, 'native', 'bin', 'postgres')).isFile()) return root
  } catch {
    // said below
  }
  throw new Error(
    `no server binaries of PostgreSQL ${version}: apt-get install postgresql-${version}, or npm ci with optional dependencies (package ${name})`,
  )
}
