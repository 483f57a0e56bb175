/** What of a restored server can be foretold on this host: binaries, libraries, collations. Findings, never refusals: it may be started elsewhere. */
import { execFile } from 'node:child_process'
import { access } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import type { CommitRecord, SourceDocument } from '@tidemark/repository'

export interface HostFinding {
  readonly check: 'binaries' | 'libraries' | 'locales' | 'collations'
  readonly message: string
}

export interface HostFacts {
  /** Full path of a pg_ctl of the right major version; undefined where none was found. */
  readonly pgCtl: string | undefined
  readonly findings: readonly HostFinding[]
}

/** Where packages put the binaries of one major version: Debian, PGDG for Red Hat, builds from source. */
const FOLDERS = (major: number): string[] => [
  `/usr/lib/postgresql/${major}/bin`,
  `/usr/pgsql-${major}/bin`,
  `/usr/local/pgsql-${major}/bin`,
]
const BUILT_IN_LOCALES = new Set(['C', 'POSIX', 'C.UTF-8', 'C.UTF8', 'ucs_basic'])

/** @param libraries that the restored server will preload. */
export async function checkHost(
  record: CommitRecord,
  source: SourceDocument | undefined,
  libraries: readonly string[],
): Promise<HostFacts> {
  const major = Math.floor(record.server.versionNum / 10_000)
  const findings: HostFinding[] = []
  const pgCtl = await findPgCtl(major)
  if (pgCtl === undefined)
    findings.push({
      check: 'binaries',
      message: `no pg_ctl of PostgreSQL ${major} was found: install the server of that version before the start`,
    })
  else findings.push(...(await missingLibraries(pgCtl, libraries)))
  if (source !== undefined) findings.push(...(await checkLocales(source)), ...(await checkIcu(source, pgCtl, major)))
  return { pgCtl, findings }
}

async function findPgCtl(major: number): Promise<string | undefined> {
  for (const folder of FOLDERS(major)) if (await exists(join(folder, 'pg_ctl'))) return join(folder, 'pg_ctl')
  const output = await outputOf('pg_ctl', ['--version'])
  return new RegExp(` ${major}(?:\\.|devel|beta|rc)`).test(output) ? 'pg_ctl' : undefined
}

async function missingLibraries(pgCtl: string, libraries: readonly string[]): Promise<HostFinding[]> {
  const folder = (await outputOf(join(dirname(pgCtl), 'pg_config'), ['--pkglibdir'])).trim()
  const candidates = [folder === '' ? join(dirname(dirname(pgCtl)), 'lib') : folder]
  const findings: HostFinding[] = []
  for (const library of libraries) {
    const name = library.replace(/^\$libdir\//, '').replace(/\.so$/, '')
    const path = name.startsWith('/') ? `${name}.so` : join(candidates[0] ?? '', `${name}.so`)
    if (!(await exists(path)))
      findings.push({
        check: 'libraries',
        message: `preload library ${library} is not at ${path}: the server will not start without it`,
      })
  }
  return findings
}

async function checkLocales({ databases }: SourceDocument): Promise<HostFinding[]> {
  const findings: HostFinding[] = []
  const installed = new Set((await outputOf('locale', ['-a'])).split('\n').map(normalizedLocale))
  const names = new Set(
    databases.filter(({ provider }) => provider !== 'icu').flatMap(({ collate, ctype }) => [collate, ctype]),
  )
  for (const name of names) {
    if (installed.size > 1 && !BUILT_IN_LOCALES.has(name) && !installed.has(normalizedLocale(name)))
      findings.push({
        check: 'locales',
        message: `locale ${name} is not installed: databases with it cannot be connected to`,
      })
  }
  const glibc = glibcVersion()
  for (const { name, provider, collationVersion, collate } of databases) {
    if (collationVersion === null || BUILT_IN_LOCALES.has(collate)) continue
    if (provider === 'icu')
      findings.push({
        check: 'collations',
        message: `database ${name} sorts by ICU ${collationVersion}, and this host's version is known to its server only`,
      })
    else if (glibc !== undefined && glibc !== collationVersion)
      findings.push({
        check: 'collations',
        message: `database ${name} was sorted by glibc ${collationVersion}, this host has ${glibc}: REINDEX what is sorted by text, or restore on a host with the same version`,
      })
  }
  return findings
}

/** Databases of ICU's need a server that was built with it: the default from 16 on, on request before. */
async function checkIcu(
  { databases }: SourceDocument,
  pgCtl: string | undefined,
  major: number,
): Promise<HostFinding[]> {
  const sorted = databases.filter(({ provider }) => provider === 'icu').map(({ name }) => name)
  if (pgCtl === undefined || sorted.length === 0) return []
  const options = await outputOf(join(dirname(pgCtl), 'pg_config'), ['--configure'])
  const has = major >= 16 ? !options.includes('--without-icu') : options.includes('--with-icu')
  if (options.trim() === '' || has) return []
  const message = `the server here was built without ICU: databases ${sorted.join(', ')} cannot be connected to`
  return [{ check: 'locales', message }]
}

/** As PostgreSQL takes it for the version of libc's collations (get_collation_actual_version, pg_locale.c). */
function glibcVersion(): string | undefined {
  const { header } = process.report.getReport() as { header?: { glibcVersionRuntime?: string } }
  return header?.glibcVersionRuntime
}

function normalizedLocale(name: string): string {
  return name.toLowerCase().replace('utf-8', 'utf8')
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}

async function outputOf(command: string, args: readonly string[]): Promise<string> {
  return promisify(execFile)(command, args, { timeout: 10_000 }).then(
    ({ stdout }) => stdout,
    () => '',
  )
}
