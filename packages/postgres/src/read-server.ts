import type { SqlConnection } from './connection.ts'
import type { DatabaseFacts, TablespaceFacts } from './server-facts.ts'
import { DatabaseError } from 'pg'

/** Everything preflight looks at, read through SQL; nothing here judges. */
export interface ServerReading {
  readonly settings: ReadonlyMap<string, string>
  readonly versionText: string
  readonly inRecovery: boolean
  readonly systemId: string
  readonly role: string
  readonly mayReplicate: boolean
  readonly walSenders: number
  readonly slots: number
  readonly serverTimeMs: number
  readonly databases: readonly DatabaseFacts[]
  readonly tablespaces: readonly TablespaceFacts[]
  readonly totalBytes?: number
}

const settingNames = [
  ['server_version_num', 'wal_level', 'max_wal_senders', 'max_replication_slots', 'full_page_writes', 'data_checksums'],
  ['wal_segment_size', 'block_size', 'max_connections', 'max_worker_processes', 'max_prepared_transactions'],
  ['max_locks_per_transaction', 'data_directory', 'config_file', 'hba_file', 'ident_file', 'shared_preload_libraries'],
  ['max_slot_wal_keep_size', 'synchronous_standby_names'],
].flat()

/** server_version_num without anything that an old or foreign server might not know. */
export async function readVersionNum(sql: SqlConnection): Promise<number> {
  const [row] = await sql.query<{ server_version_num: string }>('SHOW server_version_num')
  return Number(row?.server_version_num)
}

/** PostgreSQL 15–18: columns that only some of them have are read through to_jsonb. */
export async function readServer(sql: SqlConnection): Promise<ServerReading> {
  // Rows the role may not see are left out of pg_settings (data_directory and others of GUC_SUPERUSER_ONLY).
  const settings = await sql.query<{ name: string; setting: string | null }>(
    'SELECT name, setting FROM pg_settings WHERE name = ANY($1)',
    [settingNames],
  )
  const [state] = await sql.query<{
    version: string
    in_recovery: boolean
    system_id: string
    role: string
    may_replicate: boolean
    wal_senders: number
    slots: number
    now_ms: number
  }>(`SELECT version(), pg_is_in_recovery() AS in_recovery, current_user AS role,
        (SELECT system_identifier::text FROM pg_control_system()) AS system_id,
        (SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user) AS may_replicate,
        (SELECT count(*)::int FROM pg_stat_replication) AS wal_senders,
        (SELECT count(*)::int FROM pg_replication_slots) AS slots,
        (extract(epoch FROM clock_timestamp()) * 1000)::float8 AS now_ms`)
  if (state === undefined) throw new Error('a SELECT without FROM gave no row')
  const totalBytes = await readTotalBytes(sql)
  return {
    settings: new Map(settings.map(({ name, setting }) => [name, setting ?? ''])),
    versionText: state.version,
    inRecovery: state.in_recovery,
    systemId: state.system_id,
    role: state.role,
    mayReplicate: state.may_replicate,
    walSenders: state.wal_senders,
    slots: state.slots,
    serverTimeMs: state.now_ms,
    databases: await readDatabases(sql),
    tablespaces: await sql.query<{ oid: number; name: string; location: string }>(
      `SELECT oid, spcname AS name, pg_tablespace_location(oid) AS location FROM pg_tablespace
       WHERE pg_tablespace_location(oid) <> '' ORDER BY oid`,
    ),
    ...(totalBytes === undefined ? {} : { totalBytes }),
  }
}

export async function readDatabases(sql: SqlConnection): Promise<DatabaseFacts[]> {
  const rows = await sql.query<
    Record<'name' | 'encoding' | 'provider' | 'collate' | 'ctype', string> & {
      oid: number
      icu_locale: string | null
      collation_version: string | null
    }
  >(`SELECT d.oid, d.datname AS name, pg_encoding_to_char(d.encoding) AS encoding,
        to_jsonb(d)->>'datlocprovider' AS provider, d.datcollate AS collate, d.datctype AS ctype,
        coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale') AS icu_locale,
        to_jsonb(d)->>'datcollversion' AS collation_version
      FROM pg_database d ORDER BY d.oid`)
  return rows.map((row) => ({
    oid: row.oid,
    name: row.name,
    encoding: row.encoding,
    localeProvider: row.provider,
    collate: row.collate,
    ctype: row.ctype,
    ...(row.icu_locale === null ? {} : { icuLocale: row.icu_locale }),
    ...(row.collation_version === null ? {} : { collationVersion: row.collation_version }),
  }))
}

/** pg_database_size stats every file and needs CONNECT or pg_read_all_stats: an estimate worth having, not worth failing for. */
async function readTotalBytes(sql: SqlConnection): Promise<number | undefined> {
  try {
    const [row] = await sql.query<{ bytes: string | null }>(`SELECT
        CASE WHEN bool_and(pg_has_role('pg_read_all_stats', 'USAGE') OR has_database_privilege(oid, 'CONNECT'))
             THEN (SELECT sum(pg_database_size(oid)) FROM pg_database) END::text AS bytes FROM pg_database`)
    return row?.bytes ? Number(row.bytes) : undefined
  } catch (error) {
    const cause = error instanceof Error ? error.cause : undefined
    // 42501: a right was missing after all; 57014: statement_timeout; 58P01, 42704: dropped while we looked.
    if (cause instanceof DatabaseError && ['42501', '57014', '58P01', '42704'].includes(cause.code ?? ''))
      return undefined
    throw error
  }
}
