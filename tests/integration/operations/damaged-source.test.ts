import { open, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { adoptPostgres, startPostgres, startRedis, until } from '@tidemark/testkit'
import { expect, test } from 'vitest'
import { Fleet } from '../../support/fleet.ts'

test('a page that rotted on the source: the backup is kept, marked damaged, never taken for the latest, and restored only by name', async () => {
  await using source = await startPostgres()
  await source.query('CREATE TABLE rotten AS SELECT g AS id, md5(g::text) AS text FROM generate_series(1, 50000) g')
  await source.query('CREATE TABLE sound AS SELECT 42 AS answer; CHECKPOINT')
  await using fleet = await Fleet.create({ clusters: { main: source }, repositories: { local: { folder: 'local' } } })
  await fleet.initRepositories()
  const intact = await fleet.backupLocally()
  const [row] = await source.query<{ path: string }>("SELECT pg_relation_filepath('rotten') AS path")
  await source.stop()
  await corruptPage(join(source.dataDirectory, row?.path ?? ''), 5)
  await source.start()

  const run = await fleet.cli(['--json', 'backup', 'base', 'main', '--local'])
  expect(run.code).toBe(5)
  const damaged = JSON.parse(run.stdout) as { backupId: string; verdict: string }

  expect(damaged.verdict).toBe('damaged')
  expect((await fleet.listed()).map(({ backupId, verdict }) => ({ backupId, verdict }))).toEqual([
    { backupId: damaged.backupId, verdict: 'damaged' },
    { backupId: intact.backupId, verdict: 'intact' },
  ])
  const table = await fleet.cli(['backups', 'list'])
  expect(table.stdout).toMatch(new RegExp(`^${damaged.backupId} .* damaged `, 'm'))
  const plan = await fleet.json<{ backupId: string }>([
    'restore',
    'plan',
    'latest',
    '--target',
    await fleet.newTarget('x'),
  ])
  expect(plan.backupId).toBe(intact.backupId)
  // What is stored is what the source had: the repository itself is sound.
  expect((await fleet.verifyLocally(damaged.backupId)).repositories).toMatchObject([{ ok: true }])

  const target = await fleet.newTarget('saved')
  const restore = ['restore', 'run', damaged.backupId, '--target', target, '--local']
  expect(await fleet.cli(restore)).toMatchObject({ code: 5, problem: 'BACKUP_DAMAGED' })
  expect(await readdir(target)).toEqual([])
  expect(await fleet.cli([...restore, '--allow-damaged'])).toMatchObject({ code: 0 })
  await using saved = await adoptPostgres({ dataDirectory: target })
  expect(await saved.query('SELECT answer FROM sound')).toEqual([{ answer: 42 }])
  await expect(saved.query('SELECT count(*) FROM rotten')).rejects.toThrow(/invalid page/)
})

test('a worker that commits a damaged backup says so in its log and in a counter that was 0 from its start', async () => {
  await using source = await startPostgres()
  await using redis = await startRedis()
  await source.query('CREATE TABLE rotten AS SELECT g AS id, md5(g::text) AS text FROM generate_series(1, 50000) g')
  await source.query('CHECKPOINT')
  const [row] = await source.query<{ path: string }>("SELECT pg_relation_filepath('rotten') AS path")
  const path = row?.path ?? ''
  await source.stop()
  await corruptPage(join(source.dataDirectory, path), 5)
  await source.start()
  await using fleet = await Fleet.create({
    clusters: { main: source },
    repositories: { local: { folder: 'local' } },
    redis,
  })
  await fleet.initRepositories()
  await fleet.start('api')
  const worker = await fleet.start('worker-backup')
  const { healthUrl } = await worker.readyLine()
  const damaged = async (): Promise<string | undefined> => {
    const text = await (await fetch(`${String(healthUrl)}/metrics`)).text()
    return /^tidemark_backup_damaged_total\{cluster="main"\} (\d+)$/m.exec(text)?.[1]
  }
  expect(await damaged()).toBe('0')

  await fleet.cli(['backup', 'base', 'main', '--no-verify'])

  await until(async () => (await damaged()) === '1', { what: 'the counter to rise' })
  const line =
    (worker.stdout + worker.stderr).split('\n').find((text) => text.includes('"event":"backup-damaged"')) ?? '{}'
  const event = JSON.parse(line) as { cluster: string; backupId: string; damage: string[] }
  const [listed] = await fleet.listed()
  expect(event).toMatchObject({ cluster: 'main', backupId: listed?.backupId })
  expect(event.damage.join('\n')).toContain(path)
})

/** Changes bytes in the middle of a page, as a failing disk does: its checksum no longer holds. */
async function corruptPage(path: string, page: number): Promise<void> {
  await using file = await open(path, 'r+')
  await file.write(Buffer.alloc(64, 0x5a), 0, 64, page * 8192 + 4096)
}
