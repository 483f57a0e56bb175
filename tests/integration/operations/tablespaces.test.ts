import { silentLogger, systemClock } from '@tidemark/kernel'
import { RestoreUnsupportedError, planRestore, takeBaseBackup } from '@tidemark/operations'
import { TemporaryFolder, startPostgres, until } from '@tidemark/testkit'
import { expect, test } from 'vitest'
import { filePlace, newTestSet, noDeadline, sealing, targetOf } from '../../support/repositories.ts'
import { fillSampleCluster } from '../../support/sample-cluster.ts'

test('a tablespace that is made while the backup runs is recorded, and a restore is refused: its replay would adopt the live directory', async () => {
  await using folder = await TemporaryFolder.create('tablespaces')
  await using source = await startPostgres()
  await fillSampleCluster(source, 1)
  const location = await folder.serverFolder('space')
  const { set, keys } = await newTestSet([await filePlace('local', folder.join('local'))])
  let copying = false

  const backup = takeBaseBackup(
    {
      cluster: 'main',
      target: targetOf(source),
      operationId: 'test',
      requestedAt: new Date(),
      checkpoint: 'fast',
      maxRateKiB: 16_384,
      label: undefined,
      sealing,
    },
    {
      set,
      keys,
      clock: systemClock,
      logger: silentLogger,
      signal: noDeadline,
      progress: ({ phase, bytesDone }) => {
        copying ||= phase === 'copy' && bytesDone > 0
      },
      writerVersion: 'test',
    },
  )
  await until(() => copying, { what: 'the copy to begin' })
  await source.query(`CREATE TABLESPACE late LOCATION '${location}'`)
  const { record } = await backup

  const [late] = await source.query<{ oid: string }>("SELECT oid::text FROM pg_tablespace WHERE spcname = 'late'")
  expect(record.server.tablespaceOids).toEqual([late?.oid])
  const request = {
    backup: 'latest',
    cluster: 'main',
    repository: undefined,
    targetDirectory: await folder.serverFolder('target'),
    profile: 'clone',
    owner: undefined,
    allowDamaged: false,
  } as const
  const plan = planRestore(request, { set, keyring: keys.keyring, logger: silentLogger, signal: noDeadline })
  await expect(plan).rejects.toThrow(RestoreUnsupportedError)
})
