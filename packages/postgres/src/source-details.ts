/**
 * What a restore to another host will ask about this server, and its files alone do not tell.
 *
 * Each part needs its own rights. Where the role lacks one, the rest is read all the same, and `unread` says what is missing and
 * why: a backup is worth having without it, but nobody should believe that it is there.
 */
import { OperationalError } from '@tidemark/kernel'
import { connect, type SqlConnection } from './connection.ts'
import type { ConnectionTarget } from './connection-target.ts'
import { AuthenticationFailedError } from './errors.ts'
import { readDatabases } from './read-server.ts'
import type { DatabaseFacts, ServerFacts, TablespaceFacts } from './server-facts.ts'

export interface ConfigurationFile {
  readonly kind: 'main' | 'auto' | 'included' | 'hba' | 'ident'
  /** Absolute, on the server. */
  readonly path: string
  readonly inDataDirectory: boolean
  /** Absent for a file that the backup has anyway, and for one that could not be read. */
  readonly content?: Buffer
}

export interface SourceDetails {
  readonly configuration: readonly ConfigurationFile[]
  readonly settings: readonly {
    readonly name: string
    readonly value: string
    readonly unit: string | null
    readonly source: string
    readonly file: string | null
  }[]
  readonly databases: readonly (DatabaseFacts & { readonly bytes: number | null })[]
  readonly extensions: readonly { readonly database: string; readonly name: string; readonly version: string }[]
  readonly tablespaces: readonly TablespaceFacts[]
  readonly unread: readonly { readonly what: string; readonly reason: string }[]
}

/** Configuration is text written by people: more than this is something else. */
const MAX_FILE_BYTES = 1_048_576
const MAX_FILES = 200
/** All of them together: the document is held in memory, and its reader's too. */
const MAX_TOTAL_BYTES = 8 * 1_048_576
/** Each needs a login of its own. */
const MAX_DATABASES = 500

/**
 * @param skipped paths below the data directory that the server left out of its copy: a configuration file among them is a link.
 * @throws {ConnectionLostError} and others of `connect`; what the role may not see is no error.
 */
export async function readSourceDetails(
  target: ConnectionTarget,
  facts: ServerFacts,
  skipped: ReadonlySet<string>,
  signal: AbortSignal,
): Promise<SourceDetails> {
  await using sql = await connect(target, signal)
  const reader = new Reader(sql)
  const databases = await reader.databases()
  return {
    settings: await reader.settings(),
    configuration: await reader.configuration(facts.paths, skipped),
    databases,
    tablespaces: await reader.rows<{ oid: number; name: string; location: string }>(
      'tablespaces',
      `SELECT oid, spcname AS name, pg_tablespace_location(oid) AS location FROM pg_tablespace
       WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY oid`,
    ),
    extensions: await reader.extensions(target, signal),
    unread: reader.unread,
  }
}

class Reader {
  readonly #sql: SqlConnection
  #fileBytes = 0
  readonly unread: { what: string; reason: string }[] = []

  constructor(sql: SqlConnection) {
    this.#sql = sql
  }

  /** A part that the server refuses is noted; a lost connection is an error. */
  async rows<Row extends Record<string, unknown>>(
    what: string,
    query: string,
    values: readonly unknown[] = [],
    sql = this.#sql,
  ): Promise<Row[]> {
    try {
      return await sql.query<Row>(query, values)
    } catch (error) {
      if (!(error instanceof OperationalError) || error.code !== 'PG_ERROR') throw error
      this.unread.push({ what, reason: error.message })
      return []
    }
  }

  async settings(): Promise<SourceDetails['settings']> {
    const [role] = await this.rows<{ all: boolean }>(
      'settings',
      "SELECT pg_has_role('pg_read_all_settings', 'USAGE') AS all",
    )
    if (role?.all === false) {
      const reason =
        'the role is no member of pg_read_all_settings: files that settings come from, and superuser settings, are left out'
      this.unread.push({ what: 'settings', reason })
    }
    // Sources client and session are this login's own.
    return await this.rows(
      'settings',
      `SELECT name, coalesce(setting, '') AS value, unit, source, sourcefile AS file FROM pg_settings
       WHERE source NOT IN ('default', 'client', 'session') ORDER BY name`,
    )
  }

  async configuration(paths: ServerFacts['paths'], skipped: ReadonlySet<string>): Promise<ConfigurationFile[]> {
    const { dataDirectory, configFile, hbaFile, identFile } = paths
    const kinds = new Map<string, ConfigurationFile['kind']>()
    const add = (path: string | null | undefined, kind: ConfigurationFile['kind']): void => {
      if (path && !kinds.has(path)) kinds.set(path, kind)
    }
    for (const [path, what] of [
      [configFile, 'postgresql.conf'],
      [hbaFile, 'pg_hba.conf'],
      [identFile, 'pg_ident.conf'],
    ] as const) {
      if (path === undefined) {
        this.unread.push({ what, reason: 'where it lies is shown to members of pg_read_all_settings only' })
      }
    }
    add(configFile, 'main')
    if (dataDirectory !== undefined) add(`${dataDirectory}/postgresql.auto.conf`, 'auto')
    add(hbaFile, 'hba')
    add(identFile, 'ident')
    // Included files: the view shows those with at least one setting. Columns that 15 lacks are read through to_jsonb.
    for (const [view, column, kind] of [
      ['pg_file_settings', 'sourcefile', 'included'],
      ['pg_hba_file_rules', 'file_name', 'hba'],
      ['pg_ident_file_mappings', 'file_name', 'ident'],
    ] as const) {
      const files = await this.rows<{ path: string | null }>(
        `names of included files (${view})`,
        `SELECT DISTINCT to_jsonb(v)->>'${column}' AS path FROM ${view} v`,
      )
      for (const { path } of files) add(path, kind)
    }
    const files: ConfigurationFile[] = []
    for (const [path, kind] of kinds) {
      if (files.length === MAX_FILES) {
        this.unread.push({ what: 'configuration files', reason: `there are more than ${MAX_FILES}` })
        break
      }
      const inDataDirectory = dataDirectory !== undefined && path.startsWith(`${dataDirectory}/`)
      const copied = inDataDirectory && !skipped.has(path.slice(dataDirectory.length + 1))
      const content = copied ? undefined : await this.#file(path)
      files.push({ kind, path, inDataDirectory, ...(content === undefined ? {} : { content }) })
    }
    return files
  }

  async #file(path: string): Promise<Buffer | undefined> {
    if (this.#fileBytes > MAX_TOTAL_BYTES) {
      this.unread.push({ what: path, reason: `configuration files have more than ${MAX_TOTAL_BYTES} bytes together` })
      return undefined
    }
    const [row] = await this.rows<{ content: Buffer }>(path, 'SELECT pg_read_binary_file($1, 0, $2) AS content', [
      path,
      MAX_FILE_BYTES + 1,
    ])
    if (row === undefined) return undefined
    this.#fileBytes += row.content.length
    if (row.content.length <= MAX_FILE_BYTES) return row.content
    this.unread.push({ what: path, reason: `it is larger than ${MAX_FILE_BYTES} bytes` })
    return undefined
  }

  async databases(): Promise<SourceDetails['databases']> {
    const databases = await readDatabases(this.#sql)
    const sizes = await this.rows<{ oid: number; bytes: string | null }>(
      'sizes of databases',
      `SELECT oid, CASE WHEN pg_has_role('pg_read_all_stats', 'USAGE') OR has_database_privilege(oid, 'CONNECT')
                        THEN pg_database_size(oid) END::text AS bytes FROM pg_database`,
    )
    const bytes = new Map(sizes.map((row) => [row.oid, row.bytes]))
    return databases.map((database) => {
      const size = bytes.get(database.oid)
      if (size === null) {
        const reason = 'the role has neither CONNECT there nor pg_read_all_stats'
        this.unread.push({ what: `size of database ${database.name}`, reason })
      }
      return { ...database, bytes: size ? Number(size) : null }
    })
  }

  async extensions(target: ConnectionTarget, signal: AbortSignal): Promise<SourceDetails['extensions']> {
    const databases = await this.rows<{ name: string; connectable: boolean }>(
      'extensions',
      `SELECT datname AS name, has_database_privilege(oid, 'CONNECT') AS connectable FROM pg_database
       WHERE datallowconn ORDER BY oid`,
    )
    const extensions: { database: string; name: string; version: string }[] = []
    for (const [index, { name: database, connectable }] of databases.entries()) {
      const what = `extensions of database ${database}`
      if (!connectable || index >= MAX_DATABASES) {
        const reason = connectable ? `only ${MAX_DATABASES} databases are asked` : 'the role has no CONNECT there'
        this.unread.push({ what, reason })
        continue
      }
      try {
        await using sql = await connect({ ...target, database }, signal)
        const query = 'SELECT extname AS name, extversion AS version FROM pg_extension ORDER BY 1'
        const rows = await this.rows<{ name: string; version: string }>(what, query, [], sql)
        extensions.push(...rows.map((row) => ({ database, ...row })))
      } catch (error) {
        if (signal.aborted || !(error instanceof OperationalError)) throw error
        this.unread.push({ what, reason: error.message })
        // pg_hba.conf may let the role into one database only, or this one was dropped since. A server that does not answer is asked no more.
        if (error instanceof AuthenticationFailedError) continue
        this.unread.push({ what: 'extensions of the databases after it', reason: 'not asked any more' })
        break
      }
    }
    return extensions
  }
}
