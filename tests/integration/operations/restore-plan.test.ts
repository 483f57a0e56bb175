/** What a restored server needs of its host and of its source's configuration: foretold by the plan, and there after the restore. */
import { mkdir, readFile, readdir, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { adoptPostgres, runTool, startPostgres, unprivilegedUser, until } from '@tidemark/testkit'
import { expect, test } from 'vitest'
import { Fleet, untilPromoted } from '../../support/fleet.ts'

const isRoot = process.getuid?.() === 0
if (!isRoot) process.stderr.write('not root: the test of a small target disk is skipped, it mounts one\n')

interface Plan {
  readonly bytes: number
  readonly disks: readonly {
    readonly paths: readonly string[]
    readonly needBytes: number
    readonly freeBytes: number
  }[]
  readonly estimate: { readonly seconds: number; readonly basis: string }
  readonly minimumSettings: Readonly<Record<string, string>>
  readonly configuration: {
    readonly captured: readonly { readonly kind: string; readonly path: string; readonly inDataDirectory: boolean }[]
  }
}

test('configuration from outside of the data directory is captured, offered, and its minima hold in the copy', async () => {
  await using source = await startPostgres()
  await using fleet = await Fleet.create({ clusters: { main: source }, repositories: { local: { folder: 'local' } } })
  await fleet.initRepositories()
  const outside = await fleet.newTarget('etc')
  const [extra, hba] = [join(outside, 'extra.conf'), join(outside, 'pg_hba.conf')]
  await writeFile(extra, 'max_connections = 137\nmax_locks_per_transaction = 71\n', { mode: 0o644 })
  const rules = await readFile(join(source.dataDirectory, 'pg_hba.conf'), 'utf8')
  await writeFile(hba, `# kept outside\n${rules}`, { mode: 0o644 })
  const conf = join(source.dataDirectory, 'postgresql.conf')
  await writeFile(conf, `${await readFile(conf, 'utf8')}\ninclude '${extra}'\nhba_file = '${hba}'\n`)
  // Settings that nothing can override must go from every file that is read, whatever it is called.
  const custom = join(source.dataDirectory, 'pg_custom.conf')
  await writeFile(custom, "recovery_target_time = '2002-02-02 00:00:00+00'\nwork_mem = '7MB'\n", { mode: 0o644 })
  await writeFile(conf, `${await readFile(conf, 'utf8')}include 'pg_custom.conf'\n`)
  await source.stop()
  await source.start()
  await source.query('CREATE TABLE there AS SELECT generate_series(1, 1000) AS id')
  await fleet.backupLocally()

  const target = await fleet.newTarget('clone')
  const plan = await fleet.json<Plan>(['restore', 'plan', 'latest', '--target', target])
  expect(plan.minimumSettings).toMatchObject({ max_connections: '137', max_locks_per_transaction: '71' })
  const captured = plan.configuration.captured.filter(({ inDataDirectory }) => !inDataDirectory)
  expect(captured.map(({ path }) => path).toSorted()).toEqual([extra, hba].toSorted())
  expect(plan.estimate.seconds).toBeGreaterThan(0)
  expect(plan.estimate.basis).toMatch(/assumed: \d+ threads/)
  expect(plan.disks).toMatchObject([{ paths: [target] }])
  expect(plan.disks[0]?.needBytes).toBeGreaterThan(plan.bytes)
  expect(await readdir(target)).toEqual([])

  // The copy must do without them: its host does not have what lay outside.
  await rename(outside, `${outside}-gone`)
  await mkdir(outside)
  await writeFile(extra, '', { mode: 0o644 })
  await fleet.json(['restore', 'run', 'latest', '--target', target, '--local'])
  expect(await readFile(join(target, 'pg_custom.conf'), 'utf8')).not.toContain('recovery_target_time')
  await using clone = await adoptPostgres({ dataDirectory: target })
  await untilPromoted(clone)
  const [state] = await clone.query(
    "SELECT current_setting('max_connections') AS c, current_setting('max_locks_per_transaction') AS l, current_setting('work_mem') AS w, (SELECT count(*)::int FROM there) AS n",
  )
  expect(state).toEqual({ c: '137', l: '71', w: '7MB', n: 1000 })

  const production = await fleet.newTarget('production')
  const flags = ['--as-production', '--configuration', 'captured']
  await fleet.json(['restore', 'run', 'latest', '--target', production, '--local', ...flags])
  const folder = join(production, 'tidemark-configuration')
  const texts = await Promise.all((await readdir(folder)).map((name) => readFile(join(folder, name), 'utf8')))
  expect(texts.some((text) => text.includes(extra) && text.includes('max_connections = 137'))).toBe(true)
  expect(texts.some((text) => text.includes(hba) && text.includes('# kept outside'))).toBe(true)
})

test('a tablespace that is made while the backup runs comes back where it was, on a host that does not have it', async () => {
  await using server = await startPostgres()
  await server.query('CREATE TABLE filler AS SELECT g, repeat(md5(g::text), 20) FROM generate_series(1, 60000) g')
  await using fleet = await Fleet.create({ clusters: { main: server }, repositories: { local: { folder: 'local' } } })
  await fleet.initRepositories()
  const late = await fleet.newTarget('late')
  await using backup = fleet.beginCli(['backup', 'base', 'main', '--local', '--max-rate', '16384'])
  await until(
    async () =>
      (await server.query("SELECT 1 FROM pg_stat_progress_basebackup WHERE phase LIKE 'streaming%'")).length === 1,
    { everyMs: 5, what: 'the copy to begin' },
  )
  await server.query(`CREATE TABLESPACE late LOCATION '${late}'`)
  await server.query(
    'CREATE TABLE in_late TABLESPACE late AS SELECT g AS id, md5(g::text) AS text FROM generate_series(1, 5000) g',
  )
  const rows = 'SELECT count(*)::int AS n, sum(hashtext(id || text)) AS sum FROM in_late'
  const before = await server.query(rows)
  expect(await backup.ended).toMatchObject({ code: 0 })
  await server.stop()
  await rename(late, `${late}-of-the-source`)

  const target = await fleet.newTarget('target')
  await fleet.json(['restore', 'run', 'latest', '--target', target, '--local'])
  expect(await readdir(late)).toEqual(['tidemark_tablespace.json'])
  {
    await using copy = await adoptPostgres({ dataDirectory: target })
    await untilPromoted(copy)
    expect(await copy.query(rows)).toEqual(before)
    expect(await readdir(late)).toHaveLength(2)
  }
  // Taken up again: the directory is known by its marker.
  await fleet.json(['restore', 'run', 'latest', '--target', target, '--local', '--delta'])
  await using again = await adoptPostgres({ dataDirectory: target })
  await untilPromoted(again)
  expect(await again.query(rows)).toEqual(before)
})

test('a restore that was killed before its last word is finished by the next, also after its server has run', async () => {
  await using server = await startPostgres()
  await using fleet = await Fleet.create({ clusters: { main: server }, repositories: { local: { folder: 'local' } } })
  await fleet.initRepositories()
  const { backupId } = await fleet.backupLocally()
  const target = await fleet.newTarget('target')
  const run = ['restore', 'run', backupId, '--target', target, '--local']
  await fleet.json(run)
  // As a kill between the rename of pg_control and the word 'complete' leaves it.
  const fence = join(target, 'tidemark_restore.json')
  const { finishedAt: _, ...marker } = JSON.parse(await readFile(fence, 'utf8')) as Record<string, unknown>
  await writeFile(fence, JSON.stringify({ ...marker, state: 'incomplete', ready: true }))
  {
    await using copy = await adoptPostgres({ dataDirectory: target })
    await untilPromoted(copy)
    await copy.query('CREATE TABLE since AS SELECT 1 AS n')
    expect(await fleet.cli([...run, '--resume'])).toMatchObject({ problem: 'TARGET_IN_USE' })
  }
  expect(await fleet.cli([...run, '--resume', '--as-production'])).toMatchObject({ problem: 'TARGET_NOT_RESUMABLE' })

  const resumed = await fleet.json<{ fetchedBytes: number }>([...run, '--resume'])

  expect(resumed.fetchedBytes).toBe(0)
  expect(JSON.parse(await readFile(fence, 'utf8'))).toMatchObject({ state: 'complete' })
  await using copy = await adoptPostgres({ dataDirectory: target })
  expect(await copy.query('SELECT n FROM since')).toEqual([{ n: 1 }])
})

test.runIf(isRoot)(
  'a disk that is too small is refused by the plan and by the run, and nothing is written',
  async () => {
    await using server = await startPostgres()
    await using fleet = await Fleet.create({ clusters: { main: server }, repositories: { local: { folder: 'local' } } })
    await fleet.initRepositories()
    await fleet.backupLocally()
    const target = fleet.folder.join('small')
    await mkdir(target)
    await runTool('mount', ['-t', 'tmpfs', '-o', `size=8m,mode=0700,uid=${unprivilegedUser()?.uid}`, 'tmpfs', target])
    try {
      for (const verb of [['plan'], ['run', '--local']]) {
        const [name = '', ...flags] = verb
        const ended = await fleet.cli(['restore', name, 'latest', '--target', target, ...flags])
        expect(ended).toMatchObject({ code: 7, problem: 'TARGET_DISK_SPACE' })
      }
      expect(await readdir(target)).toEqual([])
    } finally {
      await runTool('umount', [target])
    }
  },
)
