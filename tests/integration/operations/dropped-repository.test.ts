import { readdir, rename } from 'node:fs/promises'
import { startPostgres } from '@tidemark/testkit'
import { expect, test } from 'vitest'
import { Fleet } from '../../support/fleet.ts'

test('a repository that missed a backup does not make an older one the latest', async () => {
  await using source = await startPostgres()
  await using fleet = await Fleet.create({
    clusters: { main: source },
    repositories: { first: { folder: 'first', required: false }, second: { folder: 'second' } },
  })
  await fleet.initRepositories()
  await fleet.backupLocally()
  await rename(fleet.folder.join('first'), fleet.folder.join('away'))
  const newest = await fleet.backupLocally()
  await rename(fleet.folder.join('away'), fleet.folder.join('first'))

  expect(newest.repositories).toEqual([
    { name: 'second', outcome: 'stored' },
    { name: 'first', outcome: 'dropped' },
  ])
  const target = await fleet.newTarget('target')
  expect(await fleet.json(['restore', 'plan', 'latest', '--target', target])).toMatchObject({
    backupId: newest.backupId,
    repository: 'second',
  })
  const run = ['restore', 'run', 'latest', '--target', target, '--local']
  expect(await fleet.json(run)).toMatchObject({ backupId: newest.backupId })
  expect(await readdir(target)).toContain('recovery.signal')
})
