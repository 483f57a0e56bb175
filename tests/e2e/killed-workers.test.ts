/** Workers die or leave in the middle of their work. */
import { readFile, readdir } from 'node:fs/promises'
import { adoptPostgres, random, seed, startPostgres, startRedis, until } from '@tidemark/testkit'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Fleet, untilLetGo } from '../support/fleet.ts'
import { fillSampleCluster, fingerprint } from '../support/sample-cluster.ts'

const chance = random(seed())
/** A copy of about 55 MB takes 7 s. */
const THROTTLED = { maxRateKiB: 8192, verifyAfter: false }

let resources: AsyncDisposableStack
let source: Awaited<ReturnType<typeof startPostgres>>
let fleet: Fleet
beforeAll(async () => {
  resources = new AsyncDisposableStack()
  source = resources.use(await startPostgres())
  const redis = resources.use(await startRedis())
  await fillSampleCluster(source, 1)
  fleet = resources.use(
    await Fleet.create({ clusters: { main: source }, repositories: { local: { folder: 'local' } }, redis }),
  )
  await fleet.initRepositories()
  await fleet.start('api')
})
afterAll(() => resources.disposeAsync())

test('workers killed in mid-backup and in mid-restore: the backup is done by another, the restore is never begun again', async () => {
  await using first = await fleet.start('worker-backup')
  await using restorer = await fleet.start('worker-restore')
  const base = await fleet.backupLocally()
  const before = await fingerprint(source)
  const fenced = await fleet.newTarget('fenced')

  const restoring = await fleet.post('/v1/restores', { cluster: 'main', backupId: 'latest', targetDirectory: fenced })
  // The fence is there and has been written; killed a moment earlier, it would be an empty file that fences just as well.
  const fenceFile = `${fenced}/tidemark_restore.json`
  await until(async () => (await readFile(fenceFile, 'utf8').catch(() => '')).endsWith('\n'), {
    everyMs: 1,
    what: 'the restore to begin',
  })
  await restorer.end('SIGKILL')
  const backing = await fleet.post('/v1/clusters/main/backups', THROTTLED)
  await fleet.midCopy(backing, 0.1 + 0.7 * chance.next())
  await first.end('SIGKILL')

  expect((await fleet.listed()).map(({ backupId }) => backupId)).toEqual([base.backupId])
  await untilLetGo(source)
  await using _second = await fleet.start('worker-backup')
  await using secondRestorer = await fleet.start('worker-restore')
  const backup = await fleet.finished(backing)
  expect(backup).toMatchObject({ state: 'succeeded', attempts: 2 })
  const listed = await fleet.listed()
  expect(listed.filter(({ operationId }) => operationId === backing)).toHaveLength(1)
  expect(listed).toHaveLength(2)
  for (const { backupId } of listed)
    expect((await fleet.verifyLocally(backupId)).repositories).toMatchObject([{ ok: true, problems: [] }])

  const restore = await fleet.finished(restoring)
  expect(restore).toMatchObject({ state: 'failed', error: { code: 'WORKER_LOST' } })
  expect(secondRestorer.stderr).not.toMatch(new RegExp(`${restoring}.*operation started`))
  const fence = JSON.parse(await readFile(fenceFile, 'utf8')) as { state: string }
  expect(fence.state).toBe('incomplete')
  expect((await readdir(fenced, { recursive: true })).filter((name) => name.endsWith('/pg_control'))).toEqual([])
  await expect(adoptPostgres({ dataDirectory: fenced, startTimeoutMs: 5_000 })).rejects.toThrow(/ENOENT|pg_control|not/)
  const again = { cluster: 'main', backupId: base.backupId }
  const refused = await fleet.finished(await fleet.post('/v1/restores', { ...again, targetDirectory: fenced }))
  expect(refused).toMatchObject({ state: 'failed', error: { code: 'TARGET_NOT_EMPTY' } })
  const elsewhere = await fleet.newTarget('elsewhere')
  const done = await fleet.finished(await fleet.post('/v1/restores', { ...again, targetDirectory: elsewhere }))
  expect(done.state).toBe('succeeded')
  await using restored = await adoptPostgres({ dataDirectory: elsewhere })
  expect(await fingerprint(restored)).toEqual(before)
})

test('a backup worker told to stop hands its operation back, and another one finishes it', async () => {
  await using first = await fleet.start('worker-backup')
  // Longer than the time a worker gives its work before it hands it back.
  const backing = await fleet.post('/v1/clusters/main/backups', { ...THROTTLED, maxRateKiB: 2048 })
  await fleet.midCopy(backing, 0.02 + 0.04 * chance.next())
  const earlier = (await fleet.listed()).length

  const leaving = first.end('SIGTERM')
  await using _second = await fleet.start('worker-backup')
  expect(await leaving).toEqual({ code: 0, signal: null })
  expect(first.stderr).toContain('operation handed back')
  expect(await fleet.listed()).toHaveLength(earlier)
  expect((await fleet.operation(backing)).error).toBeUndefined()
  const backup = await fleet.finished(backing)

  expect(backup.state).toBe('succeeded')
  const listed = await fleet.listed()
  expect(listed).toHaveLength(earlier + 1)
  expect(listed.filter(({ operationId }) => operationId === backing)).toHaveLength(1)
  expect(await fleet.leftovers('local')).toEqual([])
})
