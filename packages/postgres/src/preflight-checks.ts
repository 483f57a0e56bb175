import type { ServerReading } from './read-server.ts'

/** One thing about the server, with the SQL or file line that mends it. */
export interface Finding {
  readonly check:
    | 'version'
    | 'wal-level'
    | 'max-wal-senders'
    | 'max-replication-slots'
    | 'replication-right'
    | 'pg-hba-replication'
    | 'full-page-writes'
    | 'data-checksums'
    | 'slot-wal-limit'
    | 'clock-skew'
    | 'in-place-tablespace'
  readonly level: 'failure' | 'warning'
  readonly message: string
  readonly remedy: string
}

const oldestVersionNum = 150_000
/** The first version that is not known to work; the pg_control layout and BASE_BACKUP may change in any major one. */
const tooNewVersionNum = 190_000
const maxClockSkewMs = 60_000

export function judgeVersion(versionNum: number): Finding | undefined {
  if (versionNum >= oldestVersionNum && versionNum < tooNewVersionNum) return undefined
  return {
    check: 'version',
    level: 'failure',
    message: `PostgreSQL ${Math.trunc(versionNum / 10_000)} is not supported (15 to 18 are)`,
    remedy: versionNum < oldestVersionNum ? '-- upgrade with pg_upgrade' : '-- use a newer Tidemark',
  }
}

/** Every check that needs no further connection. All are made, however many fail. */
export function judgeReading(reading: ServerReading, need: { needWal: boolean; clockSkewMs: number }): Finding[] {
  const findings: Finding[] = []
  const add = (check: Finding['check'], level: Finding['level'], message: string, remedy: string): void => {
    findings.push({ check, level, message, remedy })
  }
  const text = (name: string): string => reading.settings.get(name) ?? ''
  const restart = '-- then restart the server'

  if (text('wal_level') === 'minimal') {
    const remedy = `ALTER SYSTEM SET wal_level = 'replica'; ${restart}`
    add('wal-level', 'failure', 'wal_level is minimal, at least replica is needed', remedy)
  }
  const sendersNeeded = need.needWal ? 2 : 1
  const senders = Number(text('max_wal_senders'))
  if (senders - reading.walSenders < sendersNeeded) {
    const message = `${reading.walSenders} of ${senders} walsenders are taken, ${sendersNeeded} free ones are needed`
    const remedy = `ALTER SYSTEM SET max_wal_senders = ${Math.max(10, reading.walSenders + sendersNeeded)}; ${restart}`
    add('max-wal-senders', 'failure', message, remedy)
  }
  const slots = Number(text('max_replication_slots'))
  if (need.needWal && slots - reading.slots < 1) {
    const message = `${reading.slots} of ${slots} replication slots are taken, a free one is needed`
    const remedy = `ALTER SYSTEM SET max_replication_slots = ${Math.max(10, reading.slots + 1)}; ${restart}`
    add('max-replication-slots', 'failure', message, remedy)
  }
  if (!reading.mayReplicate) {
    const remedy = `ALTER ROLE "${reading.role.replaceAll('"', '""')}" REPLICATION;`
    add('replication-right', 'failure', `role ${reading.role} has no REPLICATION`, remedy)
  }
  if (text('full_page_writes') !== 'on') {
    const remedy = 'ALTER SYSTEM SET full_page_writes = on; SELECT pg_reload_conf(); CHECKPOINT;'
    add('full-page-writes', 'failure', 'full_page_writes is off: torn pages in a backup could not be repaired', remedy)
  }
  if (text('data_checksums') !== 'on') {
    const remedy = '-- with the server stopped: pg_checksums --enable -D <data directory>'
    add('data-checksums', 'warning', 'data checksums are off: corrupted pages are backed up unnoticed', remedy)
  }
  if (need.needWal && Number(text('max_slot_wal_keep_size')) >= 0) {
    const message = `max_slot_wal_keep_size is ${text('max_slot_wal_keep_size')} MB: a backup that falls further behind loses its WAL`
    add('slot-wal-limit', 'warning', message, 'ALTER SYSTEM SET max_slot_wal_keep_size = -1; SELECT pg_reload_conf();')
  }
  const inside = reading.tablespaces.filter(({ location }) => !location.startsWith('/'))
  if (Number(text('server_version_num')) < 160_000 && inside.length > 0) {
    // Up to 15 the server leaves out what lies in pg_tblspc itself (sendDir, src/backend/backup/basebackup.c).
    const names = inside.map(({ name }) => name).join(', ')
    const message = `tablespaces inside the data directory (${names}) are not sent by PostgreSQL 15: the backup would lack their files`
    const remedy = `-- move what they hold: ALTER DATABASE … SET TABLESPACE, ALTER TABLE ALL IN TABLESPACE … SET TABLESPACE pg_default; DROP TABLESPACE …`
    add('in-place-tablespace', 'failure', message, remedy)
  }
  if (Math.abs(need.clockSkewMs) > maxClockSkewMs) {
    const message = `the clocks of the server and of this host differ by ${Math.round(need.clockSkewMs / 1000)} s`
    add('clock-skew', 'warning', message, '-- run NTP (chrony, systemd-timesyncd) on both hosts')
  }
  return findings
}
