/**
 * Tablespaces are absolute paths, on the host of the source and on that of the copy alike.
 *
 * The first test shows the harm that the guard is there to prevent, by getting round it; the others show the guard.
 */
import { lstat, mkdir, readdir, readlink, rename, rm, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestPostgres, adoptPostgres, startPostgres, until } from '@tidemark/testkit'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Fleet, untilPromoted } from '../../support/fleet.ts'

let resources: AsyncDisposableStack
let source: TestPostgres
let fleet: Fleet
let space: string
let backupId: string
beforeAll(async () => {
  resources = new AsyncDisposableStack()
  source = resources.use(await startPostgres())
  fleet = resources.use(
    await Fleet.create({ clusters: { main: source }, repositories: { local: { folder: 'local' } } }),
  )
  await fleet.initRepositories()
  space = await fleet.newTarget('space')
  await source.query(`CREATE TABLESPACE fast LOCATION '${space}'`)
  await source.query(`
    CREATE TABLE there TABLESPACE fast AS SELECT g AS id, md5(g::text) AS text FROM generate_series(1, 20000) g;
    CREATE TABLE here AS SELECT generate_series(1, 1000) AS id; CHECKPOINT`)
  backupId = (await fleet.backupLocally()).backupId
})
afterAll(() => resources.disposeAsync())

const restore = (target: string, ...flags: string[]): string[] => [
  'restore',
  'run',
  backupId,
  '--target',
  target,
  '--local',
  ...flags,
]
const rowsThere = (server: TestPostgres): Promise<unknown[]> => server.query('SELECT count(*)::int AS n FROM there')

test('a copy whose tablespace lies where the source has its own destroys production: this is what the guard is for', async () => {
  await using victim = await startPostgres()
  const live = await fleet.newTarget('live')
  await victim.query(`CREATE TABLESPACE fast LOCATION '${live}'`)
  await victim.query('CREATE TABLE precious TABLESPACE fast AS SELECT generate_series(1, 5000) AS id; CHECKPOINT')
  const [relation] = await victim.query<{ path: string }>("SELECT pg_relation_filepath('precious') AS path")
  const file = join(victim.dataDirectory, relation?.path ?? '')
  await using own = await Fleet.create({ clusters: { main: victim }, repositories: { local: { folder: 'local' } } })
  await own.initRepositories()
  await own.backupLocally()
  const target = await own.newTarget('clone')
  const run = ['restore', 'run', 'latest', '--target', target, '--local']

  expect(await own.cli(run)).toMatchObject({ code: 7, problem: 'TABLESPACE_LOCATION_EXISTS' })
  expect(await readdir(target)).toEqual([])

  // Without the guard: the location looks free while the restore runs, and is production's again when the copy starts.
  await rename(live, `${live}-aside`)
  await own.json(run)
  await rm(live, { recursive: true })
  await rename(`${live}-aside`, live)
  expect((await lstat(file)).size).toBeGreaterThan(0)
  await using clone = await adoptPostgres({ dataDirectory: target })
  await untilPromoted(clone)
  await clone.query('DROP TABLE precious; CHECKPOINT')
  const left = (await lstat(file).catch(() => undefined))?.size ?? 0
  expect(left).toBe(0)
})

test('a mapped tablespace comes back elsewhere, and neither copy touches the other', async () => {
  const target = await fleet.newTarget('mapped')
  const elsewhere = await fleet.newTarget('elsewhere')
  const plan = await fleet.json<{ tablespaces: object[] }>([
    'restore',
    'plan',
    backupId,
    '--target',
    target,
    '--tablespace-mapping',
    `${space}=${elsewhere}`,
  ])
  expect(plan.tablespaces).toMatchObject([
    { name: 'fast', kind: 'copied', location: space, target: { path: elsewhere, exists: true } },
  ])
  await fleet.json(restore(target, '--tablespace-mapping', `${space}=${elsewhere}`))
  const [oid = ''] = await readdir(join(target, 'pg_tblspc'))
  expect(await readlink(join(target, 'pg_tblspc', oid))).toBe(elsewhere)
  {
    await using clone = await adoptPostgres({ dataDirectory: target })
    await untilPromoted(clone)
    expect(await readlink(join(target, 'pg_tblspc', oid))).toBe(elsewhere)
    expect(await rowsThere(clone)).toEqual([{ n: 20_000 }])
    await clone.query('DROP TABLE there; CHECKPOINT')
  }
  expect(await rowsThere(source)).toEqual([{ n: 20_000 }])

  // A delta finds its tablespace again by itself, and brings back what was dropped.
  await fleet.json(restore(target, '--delta'))
  await using again = await adoptPostgres({ dataDirectory: target })
  expect(await rowsThere(again)).toEqual([{ n: 20_000 }])
})

test('a root for tablespaces gives each a folder of its oid, and a discarded restore takes it away', async () => {
  const target = await fleet.newTarget('rooted')
  const root = await fleet.newTarget('root')
  await fleet.json(restore(target, '--tablespace-root', root))
  const [oid = ''] = await readdir(root)
  expect(oid).toMatch(/^\d+$/)
  expect(await readlink(join(target, 'pg_tblspc', oid))).toBe(join(root, oid))
  await using clone = await adoptPostgres({ dataDirectory: target })
  expect(await rowsThere(clone)).toEqual([{ n: 20_000 }])
})

test('directories that a tablespace must not go to are refused before anything is copied', async () => {
  const target = await fleet.newTarget('refused')
  const full = await fleet.newTarget('full')
  await mkdir(join(full, 'something'))
  const linked = fleet.folder.join('linked')
  await symlink(await fleet.newTarget('behind'), linked)
  const twice = await fleet.newTarget('twice')
  const refused = [
    ['--tablespace-mapping', `${space}=${full}`],
    ['--tablespace-mapping', `${space}=${linked}`],
    ['--tablespace-mapping', `${space}=${target}/inside`],
    ['--tablespace-mapping', `${space}=${join(source.dataDirectory, 'inside')}`],
    ['--tablespace-mapping', `${space}=${fleet.folder.join('no/such/parent')}`],
    ['--tablespace-mapping', `${space}-mistyped=${twice}`],
  ]
  for (const flags of refused)
    expect(await fleet.cli(restore(target, ...flags))).toMatchObject({ problem: 'TABLESPACE_MAPPING_UNUSABLE' })
  expect(await fleet.cli(restore(target))).toMatchObject({ problem: 'TABLESPACE_LOCATION_EXISTS' })
  expect(await readdir(target)).toEqual([])
})

test('a tablespace in place is restored in place', async () => {
  // PostgreSQL 15 does not send them, and the preflight of a backup says so.
  await using server = await startPostgres({ version: 16, settings: { allow_in_place_tablespaces: 'on' } })
  await server.query("CREATE TABLESPACE inside LOCATION ''")
  await server.query('CREATE TABLE there TABLESPACE inside AS SELECT generate_series(1, 500) AS id; CHECKPOINT')
  await using own = await Fleet.create({ clusters: { main: server }, repositories: { local: { folder: 'local' } } })
  await own.initRepositories()
  await own.backupLocally()
  const target = await own.newTarget('clone')
  await own.json(['restore', 'run', 'latest', '--target', target, '--local'])
  await using clone = await adoptPostgres({ dataDirectory: target })
  expect(await rowsThere(clone)).toEqual([{ n: 500 }])
})

test('a tablespace that is made while the backup runs keeps it off the host where that exists', async () => {
  await using server = await startPostgres()
  await server.query('CREATE TABLE filler AS SELECT g, repeat(md5(g::text), 20) FROM generate_series(1, 60000) g')
  const late = await fleet.newTarget('late')
  await using own = await Fleet.create({ clusters: { main: server }, repositories: { local: { folder: 'local' } } })
  await own.initRepositories()
  await using backup = own.beginCli(['backup', 'base', 'main', '--local', '--max-rate', '16384'])
  await until(
    async () =>
      (await server.query("SELECT 1 FROM pg_stat_progress_basebackup WHERE phase LIKE 'streaming%'")).length === 1,
    { everyMs: 5, what: 'the copy to begin' },
  )
  await server.query(`CREATE TABLESPACE late LOCATION '${late}'`)
  expect(await backup.ended).toMatchObject({ code: 0 })
  const target = await own.newTarget('target')
  const refused = await own.cli(['restore', 'run', 'latest', '--target', target, '--local'])
  expect(refused.problem).toMatch(/^TABLESPACE_(?:LOCATION_EXISTS|UNKNOWN)$/)
  expect(await readdir(target)).toEqual([])
})
