/** What a running operation stands on goes away for a while. */
import { random, seed, startPostgres, startRedis, until } from '@tidemark/testkit'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Fleet, untilStreamed } from '../support/fleet.ts'
import { fillSampleCluster } from '../support/sample-cluster.ts'

const chance = random(seed())
const MiB = 1_048_576
const THROTTLED = { maxRateKiB: 8192, verifyAfter: false }

let resources: AsyncDisposableStack
let source: Awaited<ReturnType<typeof startPostgres>>
let redis: Awaited<ReturnType<typeof startRedis>>
let fleet: Fleet
beforeAll(async () => {
  resources = new AsyncDisposableStack()
  source = resources.use(await startPostgres())
  redis = resources.use(await startRedis())
  await fillSampleCluster(source, 1)
  fleet = resources.use(
    await Fleet.create({ clusters: { main: source }, repositories: { local: { folder: 'local' } }, redis }),
  )
  await fleet.initRepositories()
  await Promise.all([fleet.start('api'), fleet.start('worker-backup')])
})
afterAll(() => resources.disposeAsync())

test('a database server killed in mid-backup: nothing is listed, and the backup is taken once the server is back', async () => {
  const backing = await fleet.post('/v1/clusters/main/backups', THROTTLED)
  await untilStreamed(source, chance.integer(4 * MiB, 40 * MiB))

  await source.killHard()
  const broken = await fleet.operationWhere(backing, 'a failed try', ({ state }) => state === 'retrying')
  expect(broken.error).toMatchObject({ code: expect.stringMatching(/^PG_(CONNECTION_LOST|UNREACHABLE|SHUTDOWN)$/) })
  expect(await fleet.listed()).toEqual([])
  await source.start()
  const backup = await fleet.finished(backing)

  expect(backup).toMatchObject({ state: 'succeeded', result: { verdict: 'intact' } })
  const [listed, ...others] = await fleet.listed()
  expect(others).toEqual([])
  expect(listed?.operationId).toBe(backing)
  expect((await fleet.verifyLocally('latest')).repositories).toMatchObject([{ ok: true, problems: [] }])
})

test('Redis killed in mid-backup and started again: the operation ends, and says what the repository says', async () => {
  const earlier = await fleet.listed()
  const backing = await fleet.post('/v1/clusters/main/backups', THROTTLED)
  await untilStreamed(source, chance.integer(4 * MiB, 40 * MiB))

  await redis.killHard()
  expect((await fetch(`http://127.0.0.1:${fleet.apiPort}/v1/operations/${backing}`)).status).toBe(503)
  await redis.start()
  await until(async () => (await fetch(`http://127.0.0.1:${fleet.apiPort}/readyz`)).ok, { what: 'the API to be ready' })
  const backup = await fleet.finished(backing)

  expect(backup).toMatchObject({ state: 'succeeded', result: { verdict: 'intact' } })
  const listed = await fleet.listed()
  const added = listed.slice(0, listed.length - earlier.length)
  expect(added.map(({ operationId }) => operationId)).toEqual([backing])
  expect(backup.kind === 'backup' && backup.result?.backupId).toBe(added[0]?.backupId)
  expect((await fleet.verifyLocally('latest')).repositories).toMatchObject([{ ok: true, problems: [] }])
})
