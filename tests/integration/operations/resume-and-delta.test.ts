/** Restores that go on where another one was: after a kill, after a failure, and into a copy that has lived since. */
import {
  appendFile,
  link,
  mkdir,
  readFile,
  readdir,
  rename,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises'
import { join } from 'node:path'
import { type TestPostgres, adoptPostgres, random, seed, startPostgres, until } from '@tidemark/testkit'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Fleet } from '../../support/fleet.ts'
import { fillSampleCluster, fingerprint } from '../../support/sample-cluster.ts'

const chance = random(seed())
const FENCE = 'tidemark_restore.json'

interface Restored {
  readonly bytes: number
  readonly sameBytes: number
  readonly fetchedBytes: number
}

let resources: AsyncDisposableStack
let source: TestPostgres
let fleet: Fleet
let backupId: string
let before: Record<string, string>
beforeAll(async () => {
  resources = new AsyncDisposableStack()
  source = resources.use(await startPostgres())
  await fillSampleCluster(source, 4)
  fleet = resources.use(
    await Fleet.create({ clusters: { main: source }, repositories: { local: { folder: 'local' } } }),
  )
  await fleet.initRepositories()
  backupId = (await fleet.backupLocally()).backupId
  before = await fingerprint(source)
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

async function expectEqual(target: string): Promise<void> {
  await using restored = await adoptPostgres({ dataDirectory: target })
  expect(await fingerprint(restored)).toEqual(before)
}

async function names(target: string): Promise<string[]> {
  return (await readdir(target, { recursive: true })).toSorted()
}

test('restores that are killed again and again cannot be started, and one that goes on brings the rest', async () => {
  const target = await fleet.newTarget('killed')
  for (const flags of [[], ['--resume'], ['--resume']]) {
    await using command = fleet.beginCli(restore(target, ...flags))
    const reached = chance.integer(5, 900)
    await until(
      async () => (await readdir(target, { recursive: true })).length > reached || (await isComplete(target)),
      { everyMs: 1, what: `${reached} names in the target` },
    )
    if (await isComplete(target)) break
    await command.end('SIGKILL')
    expect(await readdir(join(target, 'global')).catch(() => [])).not.toContain('pg_control')
  }
  if (!(await isComplete(target))) await fleet.json(restore(target, '--resume'))
  const fresh = await fleet.newTarget('fresh')
  await fleet.json(restore(fresh))
  expect(await names(target)).toEqual(await names(fresh))
  await expectEqual(target)
})

async function isComplete(target: string): Promise<boolean> {
  const text = await readFile(join(target, FENCE), 'utf8').catch(() => '')
  return text.includes('"state":"complete"')
}

test('a restore that fails keeps what it wrote, says how to go on, and fetches only the rest when it does', async () => {
  const target = await fleet.newTarget('failed')
  const base = `local/clusters/main/${await systemId()}/base/${backupId}`
  const packs = (await readdir(fleet.folder.join(base))).filter((name) => name.startsWith('pack-')).toSorted()
  const last = join(fleet.folder.join(base), packs.at(-1) ?? '')
  const stored = await readFile(last)
  await writeFile(last, Buffer.concat([stored.subarray(0, -1000), Buffer.alloc(1000)]))

  const failed = await fleet.cli(restore(target))

  expect(failed).toMatchObject({ code: 5, problem: 'BACKUP_INCOMPLETE' })
  expect(failed.stderr).toContain(`tidemark restore run ${backupId} --target ${target} --resume`)
  expect(await readdir(join(target, 'global'))).not.toContain('pg_control')
  expect(await readdir(target)).not.toContain('tidemark_spool')
  expect(await fleet.cli(restore(target))).toMatchObject({ problem: 'TARGET_NOT_EMPTY' })
  await writeFile(last, stored)
  const resumed = await fleet.json<Restored>(restore(target, '--resume'))
  expect(resumed.sameBytes).toBeGreaterThan(resumed.bytes / 2)
  await expectEqual(target)

  const discarded = await fleet.newTarget('discarded')
  await writeFile(last, Buffer.concat([stored.subarray(0, -1000), Buffer.alloc(1000)]))
  expect(await fleet.cli(restore(discarded, '--discard-on-failure'))).toMatchObject({ problem: 'BACKUP_INCOMPLETE' })
  expect(await readdir(discarded)).toEqual([])
  await writeFile(last, stored)
})

async function systemId(): Promise<string> {
  return (await readdir(fleet.folder.join('local/clusters/main')))[0] ?? ''
}

test('a delta makes a copy that has lived equal again, for a small part of the bytes', async () => {
  const target = await fleet.newTarget('delta')
  const first = await fleet.json<Restored>(restore(target))
  {
    await using copy = await adoptPostgres({ dataDirectory: target })
    await until(async () => (await copy.query('SELECT 1 WHERE NOT pg_is_in_recovery()')).length === 1)
    await copy.query('UPDATE articles SET title = title || id WHERE id % 50 = 0')
    await copy.query('CREATE TABLE of_the_copy AS SELECT generate_series(1, 10000)')
    await copy.query('DROP TABLE events CASCADE; CHECKPOINT')
    expect(await fleet.cli(restore(target, '--delta'))).toMatchObject({ problem: 'TARGET_IN_USE' })
    expect(await copy.query('SELECT count(*)::int AS n FROM of_the_copy')).toEqual([{ n: 10_000 }])
  }
  // What nobody may rely on: files that shrank, links in the way, names that the backup does not have.
  await truncate(join(target, 'global', '1260'), 100)
  const outside = await fleet.newTarget('outside')
  await writeFile(join(outside, 'precious'), 'untouched')
  await symlink(outside, join(target, 'base', 'link'))
  await mkdir(join(target, 'base', 'more'))
  await link(join(outside, 'precious'), join(target, 'base', 'more', 'hard'))
  await rename(join(target, 'global', '1262'), join(outside, '1262'))
  await link(join(outside, '1262'), join(target, 'global', '1262'))
  const held = await readFile(join(outside, '1262'))
  await appendFile(join(target, 'PG_VERSION'), 'more')

  const delta = await fleet.json<Restored>(restore(target, '--delta'))

  expect(delta.bytes).toBe(first.bytes)
  expect(delta.fetchedBytes).toBeLessThan(first.fetchedBytes / 2)
  expect(delta.sameBytes).toBeGreaterThan(first.bytes / 2)
  expect(await readFile(join(outside, 'precious'), 'utf8')).toBe('untouched')
  expect((await readFile(join(outside, '1262'))).equals(held)).toBe(true)
  expect((await stat(join(target, 'global', '1262'))).nlink).toBe(1)
  const fresh = await fleet.newTarget('fresh-again')
  await fleet.json(restore(fresh))
  expect(await names(target)).toEqual(await names(fresh))
  for (const name of await names(fresh)) {
    if (!(await stat(join(fresh, name))).isFile() || name === FENCE || name.endsWith('auto.conf')) continue
    const [ours, theirs] = [await readFile(join(target, name)), await readFile(join(fresh, name))]
    if (!ours.equals(theirs)) throw new Error(`${name} differs`)
  }
  await expectEqual(target)
})

test('a delta is refused where another database system was restored, or none', async () => {
  await using other = await startPostgres()
  await using others = await Fleet.create({ clusters: { main: other }, repositories: { local: { folder: 'local' } } })
  await others.initRepositories()
  await others.backupLocally()
  const target = await fleet.newTarget('of-another')
  await others.json(['restore', 'run', 'latest', '--target', target, '--local'])
  expect(await fleet.cli(restore(target, '--delta'))).toMatchObject({ problem: 'TARGET_NOT_RESUMABLE' })
  expect(await fleet.cli(restore(await fleet.newTarget('none'), '--delta'))).toMatchObject({
    problem: 'TARGET_NOT_RESUMABLE',
  })
  expect(await readdir(join(target, 'global'))).toContain('pg_control')
})
