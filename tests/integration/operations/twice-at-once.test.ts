import { randomBytes } from 'node:crypto'
import { backupOptionsSchema, newOperationId } from '@tidemark/contracts'
import { silentLogger, systemClock } from '@tidemark/kernel'
import { backupCluster } from '@tidemark/operations'
import { startPostgres } from '@tidemark/testkit'
import { expect, test } from 'vitest'
import { Fleet } from '../../support/fleet.ts'
import { noDeadline } from '../../support/repositories.ts'
import { fillSampleCluster } from '../../support/sample-cluster.ts'

test('one operation run by several workers at once leads to one backup, which each of them names or leaves to the others', async () => {
  await using source = await startPostgres({ settings: { max_wal_senders: '20', max_replication_slots: '20' } })
  await fillSampleCluster(source, 1)
  await using fleet = await Fleet.create({ clusters: { main: source }, repositories: { local: { folder: 'local' } } })
  await fleet.initRepositories()
  const { config } = fleet
  const request = {
    cluster: 'main',
    operationId: newOperationId('backup', Date.now(), randomBytes(10)),
    requestedAt: new Date(),
    options: backupOptionsSchema.parse({}),
  }
  const deps = { config, clock: systemClock, logger: silentLogger, signal: noDeadline, progress: () => {} }

  const outcomes = await Promise.allSettled(Array.from({ length: 4 }, () => backupCluster(request, deps)))
  const late = await backupCluster(request, deps)

  const backups = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value.backupId] : []))
  const refusals = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason as unknown] : []))
  for (const refusal of refusals) expect(refusal).toMatchObject({ code: 'CLUSTER_BUSY', retry: 'backoff' })
  expect(new Set([...backups, late.backupId]).size).toBe(1)
  expect(await fleet.listed()).toMatchObject([{ backupId: late.backupId, operationId: request.operationId }])
  expect((await fleet.verifyLocally('latest')).repositories).toMatchObject([{ ok: true, problems: [] }])
})
