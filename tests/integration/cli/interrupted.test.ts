/** Ctrl-C and SIGTERM of the command line in the middle of its work. */
import { readdir } from 'node:fs/promises'
import { random, seed, startPostgres, until } from '@tidemark/testkit'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Fleet, untilLetGo, untilStreamed } from '../../support/fleet.ts'
import { fillSampleCluster } from '../../support/sample-cluster.ts'

const chance = random(seed())
const MiB = 1_048_576

let resources: AsyncDisposableStack
let source: Awaited<ReturnType<typeof startPostgres>>
let fleet: Fleet
beforeAll(async () => {
  resources = new AsyncDisposableStack()
  source = resources.use(await startPostgres())
  await fillSampleCluster(source, 1)
  const repositories = { local: { folder: 'local' }, second: { folder: 'second' } }
  fleet = resources.use(await Fleet.create({ clusters: { main: source }, repositories }))
  await fleet.initRepositories()
})
afterAll(() => resources.disposeAsync())

test.each(['SIGINT', 'SIGTERM'] as const)(
  '%s in mid-copy of a backup: exit code 130, nothing listed, nothing left here or on the server',
  async (signal) => {
    const earlier = await fleet.listed()
    await using command = fleet.beginCli(['backup', 'base', 'main', '--local', '--max-rate', '8192'])
    await untilStreamed(source, chance.integer(2 * MiB, 40 * MiB))

    const ending = await command.end(signal)

    expect(ending).toEqual({ code: 130, signal: null })
    expect(command.stderr).toMatch(/^CODE: ABORTED$/m)
    expect(command.stdout).toBe('')
    await untilLetGo(source)
    expect(await fleet.listed()).toEqual(earlier)
    expect(await fleet.leftovers('local', 'second')).toEqual([])
  },
)

test('a second signal ends the command at once', async () => {
  await using command = fleet.beginCli(['backup', 'base', 'main', '--local', '--max-rate', '8192'])
  await untilStreamed(source, 2 * MiB)

  command.signal('SIGTERM')
  const ending = await command.end('SIGTERM')

  expect(ending).toEqual({ code: 130, signal: null })
  await untilLetGo(source)
})

test('SIGINT in mid-restore that is to leave nothing: exit code 130, and the target is as empty as it was, or is not there again', async () => {
  await fleet.backupLocally()
  const empty = await fleet.newTarget('empty')
  // As root, a directory that is made takes the owner of the one above it.
  const above = await fleet.newTarget('above')
  for (const target of [empty, `${above}/made`]) {
    await using command = fleet.beginCli([
      'restore',
      'run',
      'latest',
      '--target',
      target,
      '--local',
      '--discard-on-failure',
    ])
    await until(async () => (await readdir(target)).length > chance.integer(1, 12), { everyMs: 1, what: 'files in it' })

    const ending = await command.end('SIGINT')

    expect(ending).toEqual({ code: 130, signal: null })
    expect(command.stderr).toMatch(/^CODE: ABORTED$/m)
  }
  expect(await readdir(empty)).toEqual([])
  expect(await readdir(above)).toEqual([])
  expect(await fleet.leftovers('local', 'second')).toEqual([])
})
