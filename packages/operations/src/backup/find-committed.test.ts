/** A repeated operation is told of one backup that is really there, or takes another. */
import { newSampleSet, noDeadline, writeBackup, CLUSTER, type SampleSet } from '@tidemark/repository/testing'
import { StoreUnavailableError } from '@tidemark/storage'
import { expect, test } from 'vitest'
import { findCommitted } from './find-committed.ts'

const operationId = 'one-operation'
const find = ({ set }: SampleSet): ReturnType<typeof findCommitted> =>
  findCommitted(set, { cluster: CLUSTER, operationId, requestedAt: new Date() }, noDeadline)

/** A backup of the operation that is committed in these repositories only. */
async function commitIn(sample: SampleSet, indexes: readonly number[]): Promise<string> {
  const { backupId } = await writeBackup(sample, [], { operationId })
  for (const [i, store] of sample.stores.entries())
    if (!indexes.includes(i))
      store.lose(store.names('clusters/').find((name) => name.endsWith(`${backupId}.json`)) ?? '')
  return backupId
}

test('two backups of one operation are never taken for one that both repositories hold', async () => {
  const sample = await newSampleSet([true, true])
  await commitIn(sample, [0])
  await commitIn(sample, [1])
  expect(await find(sample)).toBeUndefined()
  const whole = await commitIn(sample, [0, 1])
  expect(await find(sample)).toMatchObject({
    record: { backupId: whole },
    repositories: [
      { name: 'a', outcome: 'stored' },
      { name: 'b', outcome: 'stored' },
    ],
  })
})

test('where the required repository holds two, it is the one that the optional repository holds as well', async () => {
  const sample = await newSampleSet([true, false])
  const both = await commitIn(sample, [0, 1])
  await commitIn(sample, [0])
  expect(await find(sample)).toMatchObject({
    record: { backupId: both },
    repositories: [{ outcome: 'stored' }, { outcome: 'stored' }],
  })
})

test('an optional repository that holds another backup of the operation counts as one that missed it', async () => {
  const sample = await newSampleSet([true, false])
  const committed = await commitIn(sample, [0])
  await commitIn(sample, [1])
  expect(await find(sample)).toMatchObject({
    record: { backupId: committed },
    repositories: [
      { name: 'a', outcome: 'stored' },
      { name: 'b', outcome: 'dropped' },
    ],
  })
})

test('without a required repository, one that does not answer does not hide what another holds', async () => {
  const sample = await newSampleSet([false, false])
  const committed = await commitIn(sample, [0, 1])
  sample.stores[0]?.faults.always('listFolders', new StoreUnavailableError('list', 'memory://0'))
  expect(await find(sample)).toMatchObject({
    record: { backupId: committed },
    repositories: [{ outcome: 'dropped' }, {}],
  })
})
