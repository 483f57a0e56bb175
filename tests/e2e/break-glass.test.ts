/** Everything but the repository and the key is gone: no Redis, no API, no worker, no configuration file, no source. */
import { rm } from 'node:fs/promises'
import { TemporaryFolder, adoptPostgres, sharedS3, startPostgres, startRedis } from '@tidemark/testkit'
import { expect, test } from 'vitest'
import { Fleet, awsEnvironment, bucketRepository } from '../support/fleet.ts'
import { fillSampleCluster, fingerprint } from '../support/sample-cluster.ts'

test('with nothing left but a bucket or a folder, and the key, the cluster comes back equal', async () => {
  await using s3 = await sharedS3()
  const offsite = await bucketRepository(s3)
  await using afterwards = await TemporaryFolder.create('break-glass')
  await using source = await startPostgres()
  await fillSampleCluster(source, 1)
  await using redis = await startRedis()
  await using fleet = await Fleet.create({
    clusters: { main: source },
    repositories: { local: { folder: 'local' }, offsite },
    redis,
    env: awsEnvironment(s3),
  })
  await fleet.initRepositories()
  const before = await fingerprint(source)
  const apps = await Promise.all([fleet.start('api'), fleet.start('worker-backup')])
  const taken = await fleet.finished(await fleet.post('/v1/clusters/main/backups', { verifyAfter: false }))
  expect(taken.state).toBe('succeeded')

  await Promise.all(apps.map((app) => app.end('SIGTERM')))
  await redis.killHard()
  await source.stop('immediate')
  await rm(source.dataDirectory, { recursive: true })
  await rm(fleet.configPath)
  const { BACKUP_ENCRYPTION_KEY = '' } = fleet.env
  const key = { BACKUP_ENCRYPTION_KEY, TIDEMARK_CONFIG: '', PASSWORD_OF_MAIN: '' }
  const ways = [
    { name: 'bucket', flags: ['--repository-url', offsite.url, '--endpoint', offsite.endpoint], env: key },
    {
      name: 'folder',
      flags: ['--repository-url', `file://${fleet.folder.join('local')}`],
      env: { ...key, AWS_ACCESS_KEY_ID: '', AWS_SECRET_ACCESS_KEY: '' },
    },
  ]
  for (const { name, flags, env } of ways) {
    const target = await afterwards.serverFolder(name)
    const restore = [...flags, 'restore', 'run', 'latest', '--cluster', 'main', '--target', target, '--local']
    const { code, stderr } = await fleet.cli(restore, { env, cwd: afterwards.path })
    expect(stderr).not.toContain('ERROR')
    expect(code).toBe(0)
    await using restored = await adoptPostgres({ dataDirectory: target })
    expect(await fingerprint(restored)).toEqual(before)
  }
})
