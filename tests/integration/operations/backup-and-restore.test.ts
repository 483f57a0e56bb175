import { silentLogger, systemClock } from '@tidemark/kernel'
import { planRestore, restoreBackup, takeBaseBackup, verifyBackup } from '@tidemark/operations'
import { TemporaryFolder, adoptPostgres, startPostgres } from '@tidemark/testkit'
import { expect, test } from 'vitest'
import { filePlace, newTestSet, noDeadline, sealing, targetOf } from '../../support/repositories.ts'
import { fillSampleCluster, fingerprint } from '../../support/sample-cluster.ts'

test('a cluster comes back equal from either repository of a set, on a new timeline, and isolated', async () => {
  await using folder = await TemporaryFolder.create('operations')
  await using source = await startPostgres()
  await fillSampleCluster(source, 1)
  const { set, keys } = await newTestSet([
    await filePlace('local', folder.join('local')),
    await filePlace('second', folder.join('second')),
  ])
  const common = { set, clock: systemClock, logger: silentLogger, signal: noDeadline, progress: () => {} }
  const before = await fingerprint(source)

  const { record } = await takeBaseBackup(
    {
      cluster: 'main',
      target: targetOf(source),
      operationId: 'test',
      requestedAt: new Date(),
      checkpoint: 'fast',
      maxRateKiB: undefined,
      label: undefined,
      sealing,
    },
    { ...common, keys, writerVersion: 'test' },
  )
  const verified = await verifyBackup(
    { backup: record.backupId, cluster: 'main', repository: undefined, level: 'contents' },
    { ...common, keyring: keys.keyring, threads: 2 },
  )

  expect(verified.repositories.map(({ name, ok, problems }) => ({ name, ok, problems }))).toEqual([
    { name: 'local', ok: true, problems: [] },
    { name: 'second', ok: true, problems: [] },
  ])
  for (const repository of ['local', 'second']) {
    const targetDirectory = await folder.serverFolder(`restored-${repository}`)
    const plan = await planRestore(
      {
        backup: 'latest',
        cluster: 'main',
        repository,
        targetDirectory,
        profile: 'clone',
        owner: undefined,
        allowDamaged: false,
      },
      { set, keyring: keys.keyring, logger: silentLogger, signal: noDeadline },
    )
    await restoreBackup(plan, {
      keyring: keys.keyring,
      threads: 2,
      clock: systemClock,
      logger: silentLogger,
      signal: noDeadline,
      progress: () => {},
    })
    await using restored = await adoptPostgres({ dataDirectory: targetDirectory })
    expect(await fingerprint(restored)).toEqual(before)
    const [state] = await restored.query<{ timeline: number; archive: string; listen: string }>(
      `SELECT timeline_id AS timeline, current_setting('archive_mode') AS archive, current_setting('listen_addresses') AS listen FROM pg_control_checkpoint()`,
    )
    expect(state).toEqual({ timeline: 2, archive: 'off', listen: '' })
  }
})
