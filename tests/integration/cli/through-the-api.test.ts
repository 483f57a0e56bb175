/** The command line as a client of the API, and the pipes that need neither. */
import { randomBytes } from 'node:crypto'
import type { BackupResult } from '@tidemark/contracts'
import { adoptPostgres, startPostgres, startRedis, until } from '@tidemark/testkit'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Fleet, untilStreamed } from '../../support/fleet.ts'
import { fillSampleCluster, fingerprint } from '../../support/sample-cluster.ts'

const MiB = 1_048_576

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
  await Promise.all([fleet.start('worker-backup'), fleet.start('worker-verify'), fleet.start('worker-restore')])
})
afterAll(() => resources.disposeAsync())

test('backup, list, verify, restore: each through the API, without a key or a password where the command runs', async () => {
  await using _api = await fleet.start('api')
  const env = { BACKUP_ENCRYPTION_KEY: '', PASSWORD_OF_MAIN: '' }
  const before = await fingerprint(source)

  const backup = await fleet.json<BackupResult>(['backup', 'base', 'main', '--label', 'by hand'], { env })
  const verified = await fleet.cli(['verify', backup.backupId, '--cluster', 'main', '--level', 'contents'], { env })
  const target = await fleet.newTarget('restored')
  const restored = await fleet.cli(['restore', 'run', backup.backupId, '--cluster', 'main', '--target', target], {
    env,
  })

  expect(backup.verifyOperationId).toMatch(/^verify-/)
  expect(verified).toMatchObject({ code: 0, problem: undefined })
  expect(verified.stdout).toContain(`local: backup ${backup.backupId} is good (contents: `)
  expect(restored).toMatchObject({ code: 0, problem: undefined })
  expect(restored.stdout).toMatch(new RegExp(`^start it with .*pg_ctl -D '${target}' .*start$`, 'm'))
  await using server = await adoptPostgres({ dataDirectory: target })
  expect(await fingerprint(server)).toEqual(before)
  const again = ['restore', 'run', backup.backupId, '--cluster', 'main', '--target', target]
  expect(await fleet.cli(again, { env })).toMatchObject({ code: 7, problem: 'TARGET_NOT_EMPTY' })
})

test('what the API refuses in a request is named place by place', async () => {
  await using _api = await fleet.start('api')
  const refused = await fleet.cli(['restore', 'run', 'no-id', '--cluster', 'main', '--target', '/srv/restored'])
  expect(refused.problem).toBe('REQUEST_INVALID')
  expect(refused.stderr).toMatch(/\/backupId: \S+/)
})

test('a command that follows an operation outlives a restart of the API', async () => {
  const first = await fleet.start('api')
  await using following = fleet.beginCli(['--json', 'backup', 'base', 'main', '--max-rate', '12288', '--no-verify'])
  await untilStreamed(source, MiB)

  await first.end('SIGTERM')
  await using _second = await fleet.start('api')
  const ending = await following.ended

  expect(ending.code).toBe(0)
  const { backupId } = JSON.parse(following.stdout) as BackupResult
  expect((await fleet.listed()).map((backup) => backup.backupId)).toContain(backupId)
})

test('Ctrl-C while following an operation leaves it running, and says where it can be seen', async () => {
  await using _api = await fleet.start('api')
  await using following = fleet.beginCli(['backup', 'base', 'main', '--max-rate', '12288', '--no-verify'])
  await untilStreamed(source, MiB)
  await until(() => following.stderr.includes('copy'), { what: 'progress' })

  const ending = await following.end('SIGINT')

  expect(ending).toEqual({ code: 130, signal: null })
  expect(following.stderr).toMatch(/^CODE: ABORTED$/m)
  const operationId = /\/v1\/operations\/(backup-\w+)/.exec(following.stderr)?.[1] ?? ''
  expect(await fleet.finished(operationId)).toMatchObject({ state: 'succeeded' })
})

test.each(['20', '-1', '1.5', 'x'])('seal refuses the zstd level %s', async (level) => {
  const refused = await fleet.cli(['seal', `--level=${level}`])
  expect(refused).toMatchObject({ code: 2 })
  expect(refused.stderr).toContain('a zstd level, 0 to 19')
})

test('what seal makes, unseal gives back; what was changed in between is refused with exit code 5', async () => {
  const plaintext = randomBytes(3 * MiB)
  await using sealing = fleet.beginCli(['seal'], { input: plaintext })
  expect(await sealing.ended).toEqual({ code: 0, signal: null })
  const sealed = sealing.outputBytes

  await using unsealing = fleet.beginCli(['unseal'], { input: sealed })
  expect(await unsealing.ended).toEqual({ code: 0, signal: null })
  expect(unsealing.outputBytes.equals(plaintext)).toBe(true)
  expect(sealed.includes(plaintext.subarray(0, 64))).toBe(false)
  const changed = Buffer.from(sealed)
  changed[2 * MiB] = (changed[2 * MiB] ?? 0) ^ 1
  expect(await fleet.cli(['unseal'], { input: changed })).toMatchObject({ code: 5, problem: 'SEAL_FRAME_REFUSED' })
  expect(await fleet.cli(['unseal'], { input: sealed.subarray(0, -40) })).toMatchObject({ code: 5 })
})
