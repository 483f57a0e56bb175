import { chmod, readFile, writeFile } from 'node:fs/promises'
import type { BackupResult } from '@tidemark/contracts'
import { startPostgres } from '@tidemark/testkit'
import { expect, test } from 'vitest'
import { Fleet } from '../../support/fleet.ts'

test('throttle, checkpoint mode and level are the cluster’s own, and a request may say otherwise; hooks run around it', async () => {
  await using source = await startPostgres({
    settings: { log_replication_commands: 'on', checkpoint_timeout: '30s' },
  })
  await source.query(
    'CREATE TABLE words AS SELECT g, repeat(md5((g / 3)::text), 9) AS text FROM generate_series(1, 40000) g',
  )
  await using fleet = await Fleet.create({ clusters: { main: source }, repositories: { local: { folder: 'local' } } })
  const hook = fleet.folder.join('hook')
  await writeFile(
    hook,
    `#!/bin/sh\necho "$1 $TIDEMARK_HOOK $TIDEMARK_OUTCOME $TIDEMARK_BACKUP_ID" >> ${fleet.folder.join('told')}\n`,
  )
  await chmod(hook, 0o755)
  const { host, port, user } = source
  const main = {
    nodes: [{ host, port }],
    user,
    password: { env: 'PASSWORD_OF_MAIN' },
    backup: { checkpoint: 'spread', maxRateKiB: 65_536, compressionLevel: 9 },
    hooks: { before: { command: hook, args: ['first'] }, after: { command: hook, args: ['last'], timeoutSeconds: 9 } },
  }
  await fleet.configure({
    clusters: { main },
    backup: { checkpoint: 'fast', compressionLevel: 3, maxRateKiB: 1_048_576 },
  })
  await fleet.initRepositories()
  await source.query('CHECKPOINT')

  const configured = await fleet.backupLocally()
  const asked = await fleet.backupLocally('main', '--level', '1', '--max-rate', '100000', '--checkpoint', 'fast')

  const received = source.log().match(/received replication command: BASE_BACKUP \(.*\)/g) ?? []
  expect(received).toHaveLength(2)
  expect(received[0]).toMatch(/CHECKPOINT 'spread'.*MAX_RATE 65536/)
  expect(received[1]).toMatch(/CHECKPOINT 'fast'.*MAX_RATE 100000/)
  expect(asked.storedBytes).toBeGreaterThan(configured.storedBytes * 1.1)
  expect(await readFile(fleet.folder.join('told'), 'utf8')).toBe(
    [configured, asked].map(({ backupId }) => `first before  \nlast after intact ${backupId}\n`).join(''),
  )

  // A cluster that says nothing takes the general section.
  await fleet.configure({ backup: { checkpoint: 'fast', compressionLevel: 3, maxRateKiB: 99_999 } })
  await fleet.backupLocally()
  expect(source.log().match(/received replication command: BASE_BACKUP \(.*\)/g)?.[2]).toMatch(
    /CHECKPOINT 'fast'.*MAX_RATE 99999/,
  )

  await fleet.configure({ clusters: { main: { ...main, hooks: { before: { command: '/bin/false' } } } } })
  expect(await fleet.cli(['backup', 'base', 'main', '--local'])).toMatchObject({ code: 3, problem: 'HOOK_FAILED' })
  expect(await fleet.listed()).toHaveLength(3)
})

test('a throttled backup takes as long as its rate says, beside one that is not', async () => {
  await using source = await startPostgres()
  await source.query('CREATE TABLE filler AS SELECT g, md5(g::text) FROM generate_series(1, 200000) g')
  await using fleet = await Fleet.create({ clusters: { main: source }, repositories: { local: { folder: 'local' } } })
  await fleet.initRepositories()
  const free = await fleet.backupLocally()
  const rate = Math.round(free.bytes / 1024 / 6)
  const throttled: BackupResult = await fleet.backupLocally('main', '--max-rate', String(rate))
  expect(throttled.durationMs / free.durationMs).toBeGreaterThan(1.5)
})

test('a CA file that cannot be read is an error of the configuration, with its place', async () => {
  await using source = await startPostgres()
  await using fleet = await Fleet.create({ clusters: { main: source }, repositories: { local: { folder: 'local' } } })
  await fleet.initRepositories()
  const { host, port, user } = source
  const password = { env: 'PASSWORD_OF_MAIN' }
  const caFile = fleet.folder.join('none.pem')
  await fleet.configure({ clusters: { main: { nodes: [{ host, port }], user, password, ssl: 'require', caFile } } })
  const run = await fleet.cli(['backup', 'base', 'main', '--local'])
  expect(run.problem).toBe('CONFIG_INVALID')
  expect(run.stderr).toMatch(/clusters\.main\.caFile: the file cannot be read \(ENOENT\)/)
})
