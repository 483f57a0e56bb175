/**
 * A copy must never hurt its source, whatever settings and half-finished plans the source carries.
 *
 * The same backup is restored twice: as a clone, which must keep still, and as production, which must not. The second
 * shows that the first could have failed.
 */
import { appendFile, readFile, readdir, rm, writeFile } from 'node:fs/promises'
import { TemporaryFolder, type TestPostgres, adoptPostgres, startPostgres, until } from '@tidemark/testkit'
import { expect, test } from 'vitest'
import { Fleet, untilPromoted } from '../../support/fleet.ts'
import { fillSampleCluster, fingerprint } from '../../support/sample-cluster.ts'

test('a clone promotes, archives nothing, subscribes to nothing and waits for nobody; a production restore goes on as its source did', async () => {
  await using folder = await TemporaryFolder.create('isolation')
  const archive = await folder.serverFolder('archive')
  const archived = async (): Promise<string[]> =>
    (await readdir(archive)).filter((name) => name.startsWith('00000002') && !name.endsWith('.history'))
  await using publisher = await startPostgres({ name: 'publisher', settings: { wal_level: 'logical' } })
  await using source = await startPostgres({
    name: 'source',
    settings: {
      archive_mode: 'on',
      archive_command: `cp %p ${archive}/%f`,
      shared_preload_libraries: 'pg_stat_statements',
      synchronous_standby_names: 'nobody',
      synchronous_commit: 'local',
      recovery_target_time: '2001-01-01 00:00:00+00',
    },
  })
  await leavePlansBehind(source)
  await subscribe(source, publisher)
  await using fleet = await Fleet.create({ clusters: { main: source }, repositories: { local: { folder: 'local' } } })
  await fleet.initRepositories()
  await fleet.backupLocally()
  await source.stop()
  const target = await fleet.newTarget('clone')
  await fleet.json(['restore', 'run', 'latest', '--target', target, '--local'])

  await using clone = await adoptPostgres({ dataDirectory: target })
  await untilPromoted(clone)
  await publisher.query("INSERT INTO orders VALUES (2, 'only for the subscriber')")
  await clone.query('SET synchronous_commit = on; CREATE TABLE made_in_the_clone (id int)')
  await clone.query('SELECT pg_switch_wal(); CHECKPOINT')

  const [state] = await clone.query(`
    SELECT timeline_id AS timeline, pg_is_in_recovery() AS recovering, current_setting('archive_mode') AS archive_mode,
           current_setting('archive_command') AS archive_command, current_setting('listen_addresses') AS listen,
           current_setting('shared_preload_libraries') AS preload, current_setting('max_logical_replication_workers') AS subscribers,
           current_setting('synchronous_standby_names') AS standbys, current_setting('primary_conninfo') AS upstream,
           current_setting('recovery_target_time') AS target_time FROM pg_control_checkpoint()`)
  expect(state).toEqual({
    timeline: 2,
    recovering: false,
    archive_mode: 'off',
    archive_command: '(disabled)',
    listen: '',
    preload: 'pg_stat_statements',
    subscribers: '0',
    standbys: '',
    upstream: '',
    target_time: '',
  })
  const processes = await clone.query<{ type: string }>('SELECT backend_type AS type FROM pg_stat_activity')
  expect(processes.map(({ type }) => type).filter((type) => /archiver|logical|walreceiver/.test(type))).toEqual([])
  expect(await clone.query('SELECT id FROM orders')).toEqual([{ id: 1 }])
  expect(await publisher.query('SELECT active FROM pg_replication_slots')).toEqual([{ active: false }])
  await clone.stop()
  expect(await archived()).toEqual([])

  // The row that the clone left alone is still there for whom it was meant.
  await rm(`${source.dataDirectory}/standby.signal`)
  await source.start()
  await until(async () => (await source.query('SELECT id FROM orders')).length === 2, {
    what: 'the subscriber to catch up',
  })
  await source.stop()

  const production = await fleet.newTarget('production')
  await fleet.json(['restore', 'run', 'latest', '--target', production, '--local', '--as-production'])
  await using successor = await adoptPostgres({ dataDirectory: production, password: source.password })
  await untilPromoted(successor)
  await successor.query('SELECT pg_switch_wal()')
  await until(async () => (await archived()).length > 0, { what: 'the production restore to archive' })
  await until(
    async () => (await successor.query('SELECT pid FROM pg_stat_subscription WHERE pid IS NOT NULL')).length > 0,
    {
      what: 'the production restore to subscribe',
    },
  )
  const [there] = await successor.query<{ names: string }>(
    "SELECT current_setting('synchronous_standby_names') AS names",
  )
  expect(there?.names).toBe('nobody')
}, 240_000)

test('a cluster that was restored before is backed up and restored again, onto the next timeline', async () => {
  await using source = await startPostgres()
  await fillSampleCluster(source, 1)
  await using fleet = await Fleet.create({
    clusters: { main: source },
    repositories: { local: { folder: 'local' }, second: { folder: 'second' } },
  })
  await fleet.initRepositories()
  await fleet.backupLocally()
  await source.stop()
  const second = await fleet.newTarget('second-life')
  await fleet.json(['restore', 'run', 'latest', '--target', second, '--local', '--as-production'])
  // In the place of its source: the same address, the same roles.
  await using successor = await adoptPostgres({ dataDirectory: second, password: source.password })
  await untilPromoted(successor)
  await successor.query('CREATE TABLE made_on_timeline_2 AS SELECT 2 AS n')
  const before = await fingerprint(successor)

  expect(await fleet.backupLocally()).toMatchObject({ timeline: 2, verdict: 'intact' })
  expect((await fleet.verifyLocally('latest')).repositories).toMatchObject([{ ok: true }, { ok: true }])
  await successor.stop()
  const third = await fleet.newTarget('third-life')
  await fleet.json(['restore', 'run', 'latest', '--target', third, '--local'])

  await using restored = await adoptPostgres({ dataDirectory: third })
  await untilPromoted(restored)
  expect(await fingerprint(restored)).toEqual(before)
  // The way from timeline 1 came along with the backup.
  const history = await readFile(`${third}/pg_wal/00000003.history`, 'utf8')
  expect([...history.matchAll(/^(\d+)\t/gm)].map(([, timeline]) => timeline)).toEqual(['1', '2'])
})

/** What recoveries and standbys of the past leave in a data directory. */
async function leavePlansBehind(server: TestPostgres): Promise<void> {
  await server.query("ALTER SYSTEM SET recovery_target_time = '2002-02-02 00:00:00+00'")
  await server.query("ALTER SYSTEM SET restore_command = 'exit 200'")
  await server.query("ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=1'")
  await appendFile(`${server.dataDirectory}/postgresql.conf`, "recovery_min_apply_delay = '1h'\n")
  await writeFile(`${server.dataDirectory}/standby.signal`, '', { mode: 0o644 })
}

async function subscribe(subscriber: TestPostgres, publisher: TestPostgres): Promise<void> {
  for (const server of [publisher, subscriber])
    await server.query('CREATE TABLE orders (id int PRIMARY KEY, note text)')
  await publisher.query("CREATE PUBLICATION orders FOR TABLE orders; INSERT INTO orders VALUES (1, 'copied')")
  const { host, port, user, password } = publisher
  await subscriber.query(
    `CREATE SUBSCRIPTION orders CONNECTION 'host=${host} port=${port} user=${user} password=${password}' PUBLICATION orders`,
  )
  await until(async () => (await subscriber.query('SELECT id FROM orders')).length === 1, { what: 'the first copy' })
  // Table synchronisation is over once only the subscription's own slot is left.
  await until(async () => (await publisher.query('SELECT 1 FROM pg_replication_slots')).length === 1)
}
