import { connect } from './connection.ts'
import type { ConnectionTarget } from './connection-target.ts'

/**
 * Keeps a WAL stream of ours from becoming a synchronous standby.
 *
 * With synchronous_standby_names = '*' the server may pick any walsender that reports a flush
 * position, and commits then wait for us to confirm. The decision is made from application_name
 * alone (SyncRepGetStandbyPriority, src/backend/replication/syncrep.c), so it is foreseen here from
 * the setting, which every role may read. pg_stat_replication would be too late: it shows priority 0
 * until a flush position was reported (pg_stat_get_wal_senders), and then commits may wait already.
 *
 * A match means trouble even as a 'potential' standby: it is promoted when a real one fails.
 * Keywords and counts (`FIRST 2 (…)`) are compared as if they were names; that only errs on the safe side.
 */
export function countsAsSyncStandby(applicationName: string, synchronousStandbyNames: string): boolean {
  const ours = applicationName.toLowerCase()
  for (const [token] of synchronousStandbyNames.matchAll(/"(?:[^"]|"")*"|[^\s,()"]+/g)) {
    const name = token.startsWith('"') ? token.slice(1, -1).replaceAll('""', '"') : token
    if (name === '*' || name.toLowerCase() === ours) return true
  }
  return false
}

/** The setting as a new connection sees it: a reload may have changed it since a stream began. */
export async function readSyncStandbyNames(target: ConnectionTarget, signal: AbortSignal): Promise<string> {
  await using sql = await connect(target, signal)
  const [row] = await sql.query<{ synchronous_standby_names: string }>('SHOW synchronous_standby_names')
  return row?.synchronous_standby_names ?? ''
}
