import { Redacted } from '@tidemark/kernel'
import {
  AuthenticationFailedError,
  DatabaseUnreachableError,
  PreflightFailedError,
  StandbyRefusedError,
  WalSendersExhaustedError,
  connect,
  connectReplication,
  preflight,
  type Finding,
} from '@tidemark/postgres'
import { adoptPostgres, freePort, startPostgres, TemporaryFolder, type TestPostgres } from '@tidemark/testkit'
import { writeFile, readFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { noDeadline, targetOf } from './server-target.ts'

let server: TestPostgres
beforeAll(async () => {
  server = await startPostgres({ name: 'preflight', settings: { fsync: 'off' } })
})
afterAll(() => server[Symbol.asyncDispose]())

async function findingsOf(attempt: Promise<unknown>): Promise<readonly Finding[]> {
  const error: unknown = await attempt.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  expect(error).toBeInstanceOf(PreflightFailedError)
  return (error as PreflightFailedError).findings
}

test('a good server passes, and its facts are those the server itself states', async () => {
  const facts = await preflight(targetOf(server), { needWal: true }, noDeadline)
  expect(facts.warnings).toEqual([])
  const control = await server.run('pg_controldata', [server.dataDirectory])
  const line = (name: string): string | undefined => new RegExp(`^${name}: +(.*)$`, 'm').exec(control.stdout)?.[1]
  expect(facts).toMatchObject({
    systemId: line('Database system identifier'),
    timeline: 1,
    dataChecksums: true,
    walSegmentBytes: Number(line('Bytes per WAL segment')),
    blockBytes: Number(line('Database block size')),
    restoreMinima: {
      maxConnections: Number(line('max_connections setting')),
      maxWorkerProcesses: Number(line('max_worker_processes setting')),
      maxWalSenders: Number(line('max_wal_senders setting')),
      maxPreparedTransactions: Number(line('max_prepared_xacts setting')),
      maxLocksPerTransaction: Number(line('max_locks_per_xact setting')),
    },
    paths: { dataDirectory: server.dataDirectory, configFile: join(server.dataDirectory, 'postgresql.conf') },
    sharedPreloadLibraries: [],
    tablespaces: [],
  })
  expect(facts.versionNum).toBeGreaterThanOrEqual(150_000)
  expect(facts.totalBytes).toBeGreaterThan(10_000_000)
  expect(facts.databases.map(({ name }) => name).sort()).toEqual(['postgres', 'template0', 'template1'])
  expect(Math.abs(facts.clockSkewMs)).toBeLessThan(5_000)
})

test('a role with nothing but REPLICATION passes; what it may not read is absent', async () => {
  await server.query("CREATE ROLE plain LOGIN REPLICATION PASSWORD 'secret'")
  const target = targetOf(server, { user: 'plain', password: new Redacted('secret') })
  const facts = await preflight(target, { needWal: true }, noDeadline)
  expect(facts.paths).toEqual({})
  expect(facts.sharedPreloadLibraries).toBeUndefined()
  expect(facts.systemId).toMatch(/^\d+$/)
})

test('a role without REPLICATION is told the SQL that grants it', async () => {
  await server.query(`CREATE ROLE "no ""right" LOGIN PASSWORD 'secret'`)
  const target = targetOf(server, { user: 'no "right', password: new Redacted('secret') })
  expect(await findingsOf(preflight(target, { needWal: true }, noDeadline))).toEqual([
    {
      check: 'replication-right',
      level: 'failure',
      message: expect.any(String),
      remedy: 'ALTER ROLE "no ""right" REPLICATION;',
    },
  ])
})

test('a pg_hba.conf without replication is noticed by trying', async () => {
  await server.query("CREATE ROLE shut_out LOGIN REPLICATION PASSWORD 'secret'")
  const path = join(server.dataDirectory, 'pg_hba.conf')
  const before = await readFile(path, 'utf8')
  await writeFile(path, `host replication shut_out all reject\n${before}`)
  await server.query('SELECT pg_reload_conf()')
  const target = targetOf(server, { user: 'shut_out', password: new Redacted('secret') })
  const findings = await findingsOf(preflight(target, { needWal: true }, noDeadline))
  expect(findings.map(({ check }) => check)).toEqual(['pg-hba-replication'])
})

test('wrong and missing passwords and unknown roles and databases are refused logins', async () => {
  for (const overrides of [
    { password: new Redacted('wrong') },
    { password: undefined },
    { user: 'nobody' },
    { database: 'nowhere' },
  ]) {
    await expect(preflight(targetOf(server, overrides), { needWal: true }, noDeadline)).rejects.toThrow(
      AuthenticationFailedError,
    )
  }
})

test('a closed port, an unknown host and a peer that never answers are unreachable', async () => {
  const mute = createServer(() => {})
  const mutePort = await freePort()
  await new Promise<void>((resolve) => mute.listen(mutePort, '127.0.0.1', resolve))
  for (const overrides of [
    { port: await freePort() },
    { host: 'no-such-host.invalid' },
    { port: mutePort, connectTimeoutMs: 200 },
  ]) {
    await expect(preflight(targetOf(server, overrides), { needWal: true }, noDeadline)).rejects.toThrow(
      DatabaseUnreachableError,
    )
  }
  mute.close()
})

test('TLS asked of a server without TLS is its own error', async () => {
  const attempt = connect(targetOf(server, { ssl: true }), noDeadline)
  await expect(attempt).rejects.toMatchObject({ code: 'PG_TLS_FAILED' })
})

test('an abort ends a running query at once and releases its connection', async () => {
  const abort = new AbortController()
  await using sql = await connect(targetOf(server), abort.signal)
  const query = sql.query('SELECT pg_sleep(20)')
  abort.abort()
  await expect(query).rejects.toMatchObject({ code: 'ABORTED' })
})

test('every failing setting of a badly configured server is named at once', async () => {
  const settings = { wal_level: 'minimal', max_wal_senders: '0', max_replication_slots: '0', full_page_writes: 'off' }
  await using bad = await startPostgres({ name: 'bad', settings })
  const findings = await findingsOf(preflight(targetOf(bad), { needWal: true }, noDeadline))
  expect(findings.map(({ check, level }) => `${level} ${check}`)).toEqual([
    'failure wal-level',
    'failure max-wal-senders',
    'failure max-replication-slots',
    'failure full-page-writes',
  ])
  await expect(connectReplication(targetOf(bad), noDeadline)).rejects.toThrow(WalSendersExhaustedError)
})

test('a standby is refused', async () => {
  await using folder = await TemporaryFolder.create('standby')
  const copy = folder.join('data')
  const port = await freePort()
  await server.run('pg_basebackup', ['-D', copy, '-R', '-c', 'fast', '-X', 'stream'])
  await using standby = await adoptPostgres({
    dataDirectory: copy,
    password: server.password,
    settings: { port: String(port), hot_standby: 'on', unix_socket_directories: '' },
  })
  await expect(preflight(targetOf(standby), { needWal: true }, noDeadline)).rejects.toThrow(StandbyRefusedError)
})
