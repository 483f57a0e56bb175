/** A lease is what the newest begin object says, in every repository, and renewals never get in each other's way. */
import { silentLogger } from '@tidemark/kernel'
import { ManualClock } from '@tidemark/storage/testing'
import { expect, test } from 'vitest'
import { AttemptLease } from './attempt-lease.ts'
import { ClusterLayout } from './layout.ts'
import type { Repository } from './set/repository.ts'
import { SetWriter } from './set/set-writer.ts'
import { CLUSTER, SYSTEM_ID, type SampleSet, newSampleSet, noDeadline } from './testing/sample-set.ts'

const MINUTE_MS = 60_000
const layout = new ClusterLayout(CLUSTER, SYSTEM_ID)
const backupId = '0123456789abcdef'

function leaseOn({ set, keys }: SampleSet, clock: ManualClock): AttemptLease {
  const deps = { clock, logger: silentLogger, signal: noDeadline }
  const attempt = { backupId, operationId: 'op', cluster: CLUSTER, systemId: SYSTEM_ID, startedAt: clock.now() }
  return new AttemptLease(attempt, new SetWriter(set.repositories, silentLogger, clock), keys.keyring, deps)
}

const turns = async (): Promise<void> => {
  for (let i = 0; i < 20; i += 1) await new Promise(setImmediate)
}

test('a renewal that takes longer than the pause between two has none beside it, and the newest counts in the end', async () => {
  const clock = new ManualClock()
  const sample = await newSampleSet([true], clock, clock)
  const [store] = sample.stores
  if (store === undefined) throw new Error('no store')
  await using lease = leaseOn(sample, clock)
  await lease.renew()
  lease.keepRenewing()
  let [atOnce, most] = [0, 0]
  const holds: (() => void)[] = []
  store.faults.latency = async (method) => {
    if (method !== 'put') return
    atOnce += 1
    most = Math.max(most, atOnce)
    await new Promise<void>((resolve) => holds.push(resolve))
    atOnce -= 1
  }
  for (let i = 0; i < 3; i += 1) {
    clock.advance(10 * MINUTE_MS)
    await turns()
  }
  const asked = lease.renew()
  await turns()
  expect(holds).toHaveLength(1)
  for (let i = 0; i < 6; i += 1) {
    holds.shift()?.()
    await turns()
  }
  await asked
  expect(most).toBe(1)
  const names = store.names(layout.beginsOf(backupId))
  expect(names.length).toBeGreaterThanOrEqual(3)
  // The one that the lease goes by is the newest: with all others gone it still holds.
  const [newest] = names.toSorted(
    (a, b) => Number(b.split('-').at(-1)?.split('.')[0]) - Number(a.split('-').at(-1)?.split('.')[0]),
  )
  for (const name of names) if (name !== newest) store.lose(name)
  await lease.requireIn(sample.set.repositories[0] as Repository)
  store.faults.clear()
})

test('a lease is renewed every ten minutes, and ends with its attempt', async () => {
  const clock = new ManualClock()
  const sample = await newSampleSet([true, true], clock, clock)
  const lease = leaseOn(sample, clock)
  await lease.renew()
  lease.keepRenewing()
  for (let i = 0; i < 30; i += 1) {
    clock.advance(10 * MINUTE_MS)
    await turns()
  }
  for (const store of sample.stores) expect(store.names(layout.begins)).toHaveLength(31)
  await lease[Symbol.asyncDispose]()
  expect(clock.sleepingMs).toEqual([])
  clock.advance(60 * MINUTE_MS)
  await turns()
  expect(sample.stores[0]?.names(layout.begins)).toHaveLength(31)
})
