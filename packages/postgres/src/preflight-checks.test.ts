import { expect, test } from 'vitest'
import { PreflightFailedError } from './preflight.ts'
import { judgeReading, judgeVersion } from './preflight-checks.ts'
import type { ServerReading } from './read-server.ts'

const good = {
  server_version_num: '150018',
  wal_level: 'replica',
  max_wal_senders: '10',
  max_replication_slots: '10',
  full_page_writes: 'on',
  data_checksums: 'on',
  max_slot_wal_keep_size: '-1',
}

function reading(settings: Partial<typeof good>, rest: Partial<ServerReading> = {}): ServerReading {
  return {
    settings: new Map(Object.entries({ ...good, ...settings })),
    versionText: '',
    inRecovery: false,
    systemId: '1',
    role: 'backup',
    mayReplicate: true,
    walSenders: 0,
    slots: 0,
    serverTimeMs: 0,
    databases: [],
    tablespaces: [],
    ...rest,
  }
}

const checks = (server: ServerReading, needWal = true, clockSkewMs = 0): string[] =>
  judgeReading(server, { needWal, clockSkewMs }).map(({ level, check }) => `${level} ${check}`)

test('a well-configured server has no findings', () => expect(checks(reading({}))).toEqual([]))

test('every failing setting is named at once, and each has its remedy', () => {
  const settings = { wal_level: 'minimal', max_wal_senders: '0', max_replication_slots: '0', full_page_writes: 'off' }
  const findings = judgeReading(reading({ ...settings, data_checksums: 'off' }, { mayReplicate: false }), {
    needWal: true,
    clockSkewMs: 0,
  })
  expect(findings.map(({ level, check }) => `${level} ${check}`)).toEqual([
    'failure wal-level',
    'failure max-wal-senders',
    'failure max-replication-slots',
    'failure replication-right',
    'failure full-page-writes',
    'warning data-checksums',
  ])
  const error = new PreflightFailedError(findings)
  expect(error.hint).toContain(`ALTER ROLE "backup" REPLICATION;`)
  expect(error.hint).toContain('ALTER SYSTEM SET wal_level')
  expect(error.hint).not.toContain('pg_checksums')
  expect(error).toMatchObject({ code: 'PG_PREFLIGHT_FAILED', retry: 'after-operator' })
})

test('a backup with WAL needs two free walsenders and a free slot, without WAL one walsender', () => {
  const busy = reading({ max_wal_senders: '3', max_replication_slots: '1' }, { walSenders: 2, slots: 1 })
  expect(checks(busy)).toEqual(['failure max-wal-senders', 'failure max-replication-slots'])
  expect(checks(busy, false)).toEqual([])
})

test('a slot limit and a wrong clock are warnings', () => {
  expect(checks(reading({ max_slot_wal_keep_size: '1024' }), true, -61_000)).toEqual([
    'warning slot-wal-limit',
    'warning clock-skew',
  ])
})

test('PostgreSQL 15 to 18 are supported', () => {
  expect([150_000, 180_004].map(judgeVersion)).toEqual([undefined, undefined])
  expect([140_010, 190_000, Number.NaN].map((version) => judgeVersion(version)?.check)).toEqual([
    'version',
    'version',
    'version',
  ])
})

test('tablespaces inside the data directory are refused where the server would leave their files out', () => {
  const tablespaces = [{ oid: 16400, name: 'inside', location: 'pg_tblspc/16400' }]
  const need = { needWal: true, clockSkewMs: 0 }
  const of = (version: string) =>
    judgeReading(reading({ server_version_num: version }, { tablespaces }), need).map(({ check, level }) => [
      check,
      level,
    ])
  expect(of('150018')).toEqual([['in-place-tablespace', 'failure']])
  expect(of('160004')).toEqual([])
  const outside = [{ oid: 16400, name: 'outside', location: '/srv/space' }]
  expect(judgeReading(reading({ server_version_num: '150018' }, { tablespaces: outside }), need)).toEqual([])
})
