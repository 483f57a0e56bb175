/** Sets as an operator meets them: a repository that was away gets what it missed, by itself or by hand, without a key. */
import { rename } from 'node:fs/promises'
import { type CopyResult, type SweepResult } from '@tidemark/contracts'
import { type TestPostgres, startPostgres, startRedis, until } from '@tidemark/testkit'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Fleet } from '../../support/fleet.ts'

const resources = new AsyncDisposableStack()
let source: TestPostgres
beforeAll(async () => {
  source = resources.use(await startPostgres())
})
afterAll(() => resources.disposeAsync())

const repositories = { main: { folder: 'main' }, second: { folder: 'second', required: false } }
const NO_KEY = { env: { BACKUP_ENCRYPTION_KEY: '' } }

/** A backup while the second repository is not there. */
async function missedBySecond(fleet: Fleet): Promise<string> {
  await rename(fleet.folder.join('second'), fleet.folder.join('away'))
  try {
    return (await fleet.backupLocally()).backupId
  } finally {
    await rename(fleet.folder.join('away'), fleet.folder.join('second'))
  }
}

test('a repository that comes back gets all that it missed, with no key, and can be restored from alone', async () => {
  await using fleet = await Fleet.create({ clusters: { main: source }, repositories })
  await fleet.initRepositories()
  const held = (await fleet.backupLocally()).backupId
  const missed = [await missedBySecond(fleet), await missedBySecond(fleet)]

  const listed = await fleet.listed()
  expect(listed.map(({ backupId, missing }) => [backupId, missing])).toEqual([
    [missed[1], ['second']],
    [missed[0], ['second']],
    [held, []],
  ])
  expect((await fleet.cli(['backups', 'list'])).stdout).toContain('second (MISSING)')
  expect((await fleet.cli(['repo', 'status'], NO_KEY)).stdout).toContain('tidemark copy --to second --missing')

  const copy = await fleet.json<CopyResult>(['copy', '--to', 'second', '--missing', '--local'], NO_KEY)
  expect(copy.backups.map(({ backupId, outcome }) => [backupId, outcome])).toEqual(missed.map((id) => [id, 'copied']))
  expect((await fleet.json<CopyResult>(['copy', '--to', 'second', '--missing', '--local'], NO_KEY)).backups).toEqual([])
  expect((await fleet.listed()).flatMap(({ missing }) => missing)).toEqual([])

  await rename(fleet.folder.join('main'), fleet.folder.join('lost'))
  const verify = ['verify', missed[0] ?? '', '--local', '--level', 'contents', '--repository', 'second']
  expect(await fleet.json(verify)).toMatchObject({ repositories: [{ name: 'second', ok: true }] })
})

test('bad requests for copies say what is wrong', async () => {
  await using fleet = await Fleet.create({ clusters: { main: source }, repositories })
  await fleet.initRepositories()
  for (const [args, code, problem] of [
    [['copy', '--to', 'second', '--local'], 2, 'USAGE'],
    [['copy', '--to', 'second', '--backup', 'latest', '--missing', '--local'], 2, 'USAGE'],
    [['copy', '--to', 'second', '--backup', 'zz', '--local'], 2, 'USAGE'],
    [['copy', '--to', 'nowhere', '--missing', '--local'], 3, 'UNKNOWN_REPOSITORY'],
    [['copy', '--from', 'second', '--to', 'second', '--missing', '--local'], 3, 'UNKNOWN_REPOSITORY'],
    [['copy', '--to', 'second', '--backup', 'abcdef0123456789', '--local'], 4, 'BACKUP_NOT_FOUND'],
  ] as const)
    expect(await fleet.cli(args)).toMatchObject({ code, problem })
})

test('a repository that missed a run is copied to by itself, and the copy is verified there', async () => {
  await using redis = await startRedis()
  await using fleet = await Fleet.create({ clusters: { main: source }, repositories, redis })
  await fleet.initRepositories()
  await Promise.all((['api', 'worker-backup', 'worker-verify'] as const).map((name) => fleet.start(name)))
  await rename(fleet.folder.join('second'), fleet.folder.join('away'))
  const backup = await fleet.finished(await fleet.post('/v1/clusters/main/backups', { verifyAfter: false }))
  await rename(fleet.folder.join('away'), fleet.folder.join('second'))
  const [copyId = ''] = backup.kind === 'backup' ? (backup.result?.copyOperationIds ?? []) : []
  expect(await fleet.operation(copyId)).toMatchObject({ state: 'queued', cluster: 'main' })

  await fleet.start('worker-maintenance')
  const copied = await fleet.finished(copyId)
  const result = copied.kind === 'maintenance' && copied.result?.verb === 'copy' ? copied.result : undefined
  expect(result).toMatchObject({ to: 'second', backups: [{ outcome: 'copied' }] })
  expect(await fleet.finished(result?.verifyOperationIds?.[0] ?? '')).toMatchObject({
    state: 'succeeded',
    result: { repositories: [{ name: 'second', ok: true }] },
  })
  expect((await fleet.listed()).map((listed) => listed.repositories)).toEqual([['main', 'second']])

  const swept = await fleet.json<SweepResult>(['repo', 'sweep', '--dry-run'])
  expect(swept.repositories.map(({ name, objects, begins }) => [name, objects, begins])).toEqual([
    ['main', 0, 0],
    ['second', 0, 0],
  ])
  await until(async () => (await fleet.leftovers('main', 'second')).length === 0, { what: 'no temporary files' })
})
