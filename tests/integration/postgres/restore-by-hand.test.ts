import { segmentNumber, segmentStart, walFileName } from '@tidemark/kernel'
import { appendSettings, openWalStream, parseServerConfig, quoteSetting, runBaseBackup } from '@tidemark/postgres'
import { adoptPostgres, freePort, startPostgres, TemporaryFolder, until } from '@tidemark/testkit'
import { appendFile, chmod, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { DataDirectorySink } from './data-directory-sink.ts'
import { noDeadline, targetOf } from './server-target.ts'

test('a base backup under write load and its WAL alone start as a consistent server', async () => {
  await using folder = await TemporaryFolder.create('restore')
  await using source = await startPostgres({ name: 'source', settings: { fsync: 'off', max_wal_size: '1GB' } })
  await source.run('pgbench', ['-i', '-s', '4', '-q'])

  const copy = folder.join('copy')
  const archive = folder.join('wal')
  await mkdir(archive)
  await chmod(archive, 0o755)
  await using wal = await openWalStream(targetOf(source, { applicationName: 'tidemark_source' }), noDeadline)
  const sink = new DataDirectorySink(copy, ({ startLsn, timeline }) =>
    wal.start({
      fromLsn: segmentStart(segmentNumber(startLsn, wal.segmentBytes), wal.segmentBytes),
      timeline,
      onSegment: ({ timeline, segment, bytes }) =>
        writeFile(join(archive, walFileName(timeline, segment, bytes.length)), bytes),
    }),
  )
  const load = source.run('pgbench', ['-n', '-c', '4', '-T', '4'])
  const end = await runBaseBackup(
    targetOf(source),
    { label: 'load', checkpoint: 'fast', maxRateKiB: 40_000 },
    sink,
    noDeadline,
  )
  await wal.finishAt(end.stopLsn)
  await load
  expect(end.kind).toBe('complete')

  await writeFile(join(copy, 'recovery.signal'), '')
  await appendFile(
    join(copy, 'postgresql.conf'),
    appendSettings('', 'restored by a test', {
      restore_command: `cp ${archive}/%f %p`,
      archive_mode: 'off',
      port: String(await freePort()),
      unix_socket_directories: '',
    }),
  )
  await using restored = await adoptPostgres({ dataDirectory: copy, password: source.password })
  await until(async () => (await restored.query('SELECT NOT pg_is_in_recovery() AS up'))[0]?.['up'])

  // pgbench keeps these four sums equal in every committed state, and in no half-replayed one.
  const [sums] = await restored.query<Record<string, string>>(`SELECT
      (SELECT sum(abalance) FROM pgbench_accounts)::text AS accounts, (SELECT sum(bbalance) FROM pgbench_branches)::text AS branches,
      (SELECT sum(tbalance) FROM pgbench_tellers)::text AS tellers, (SELECT coalesce(sum(delta), 0) FROM pgbench_history)::text AS history,
      (SELECT count(*) FROM pgbench_history)::text AS transactions`)
  expect(new Set([sums?.['accounts'], sums?.['branches'], sums?.['tellers'], sums?.['history']]).size).toBe(1)
  expect(Number(sums?.['transactions'])).toBeGreaterThan(0)
  await restored.query('CREATE EXTENSION amcheck')
  await restored.query(
    'SELECT bt_index_check(indexrelid, true) FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE c.relam = 403',
  )
})

test('the server reads a quoted setting as we do', async () => {
  const values = ["it's", 'back\\slash', '#no comment', 'a = b', 'tab\there', "\\'", 'é']
  for (const value of values) {
    const line = `x = ${quoteSetting(value)}\n`
    expect(parseServerConfig(line).get('x')).toBe(value)
  }
  await using server = await startPostgres({ name: 'quoting', settings: { fsync: 'off' } })
  const lines = appendSettings(
    '',
    'quoting',
    Object.fromEntries(values.map((value, index) => [`tidemark.value_${index}`, value])),
  )
  await appendFile(join(server.dataDirectory, 'postgresql.auto.conf'), lines)
  const rows = await server.query<{ name: string; setting: string }>(
    "SELECT name, setting FROM pg_file_settings WHERE name LIKE 'tidemark.%' ORDER BY seqno",
  )
  expect(rows.map(({ setting }) => setting)).toEqual(values)
})
