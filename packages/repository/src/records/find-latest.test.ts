/** Latest: by the source's own order while nothing speaks against it, and never by a guess. */
import { randomInt } from 'node:crypto'
import * as fc from 'fast-check'
import { type Lsn, formatLsn } from '@tidemark/kernel'
import { StoreUnavailableError } from '@tidemark/storage'
import { ManualClock } from '@tidemark/storage/testing'
import { expect, test } from 'vitest'
import { CLUSTER, SYSTEM_ID, type SampleSet, newSampleSet, noDeadline, writeBackup } from '../testing/sample-set.ts'
import type { CommitRecord } from './documents.ts'
import { findBackup } from './find-backup.ts'
import { recordAt } from './read-records.ts'

const seed = Number(process.env['TIDEMARK_TEST_SEED'] ?? randomInt(2 ** 31))
process.stderr.write(`TIDEMARK_TEST_SEED=${seed}\n`)
fc.configureGlobal({ seed })

const HOUR_MS = 3_600_000

interface Told {
  readonly timeline: number
  readonly lsn: number
  /** By the worker's clock. */
  readonly stoppedHour: number
  /** By the store's; undefined: not in this repository. */
  readonly storedHours: readonly (number | undefined)[]
  readonly systemId?: string
}

/** Records alone, signed, each in its repositories at its hours. @returns their ids. */
async function withRecords(told: readonly Told[], repositories = 1): Promise<{ sample: SampleSet; ids: string[] }> {
  const clock = new ManualClock()
  const sample = await newSampleSet(Array<boolean>(repositories).fill(true), undefined, clock)
  const { record: template } = await writeBackup(sample, [])
  for (const store of sample.stores) for (const name of store.names('clusters/')) store.lose(name)
  const epochMs = clock.now().getTime()
  const puts: { hour: number; i: number; record: CommitRecord }[] = []
  const ids = told.map(({ timeline, lsn, stoppedHour, storedHours, systemId = SYSTEM_ID }, n) => {
    const backupId = (0xab_0000_0000_0000n + BigInt(n)).toString(16).padStart(16, '0')
    const stoppedAt = new Date(epochMs + stoppedHour * HOUR_MS).toISOString()
    const record = { ...template, backupId, systemId, timeline, stopLsn: formatLsn(BigInt(lsn) as Lsn), stoppedAt }
    for (const [i, hour] of storedHours.entries()) if (hour !== undefined) puts.push({ hour, i, record })
    return backupId
  })
  for (const { hour, i, record } of puts.toSorted((a, b) => a.hour - b.hour)) {
    clock.advance(epochMs + hour * HOUR_MS - clock.now().getTime())
    const bytes = sample.keys.keyring.signer.sign(record)
    await sample.stores[i]?.put(recordAt(record).name, bytes, { signal: noDeadline })
  }
  return { sample, ids }
}

async function latest({ set }: SampleSet, only?: number): Promise<string> {
  const repositories = only === undefined ? set.repositories : set.repositories.slice(only, only + 1)
  return (await findBackup(set, repositories, 'latest', CLUSTER, noDeadline)).record.backupId
}

const uncertain = (...ids: (string | undefined)[]) => ({
  code: 'LATEST_UNCERTAIN',
  retry: 'after-operator',
  message: expect.stringMatching(ids.map((id) => `(?=.*${id})`).join('')) as string,
})

/** B1 was restored to timeline 2, B2 taken there; B1 was restored again, to timeline 2 again, and B3 taken there, not as far. */
const ABANDONED: Told[] = [
  { timeline: 1, lsn: 50, stoppedHour: 1, storedHours: [1, 31] },
  { timeline: 2, lsn: 200, stoppedHour: 10, storedHours: [10, 31.1] },
  { timeline: 2, lsn: 60, stoppedHour: 20, storedHours: [20, 31.2] },
]

test('a lineage that was given up is not taken for the latest: where LSNs and clocks contradict each other, both are named', async () => {
  const { sample, ids } = await withRecords(ABANDONED, 2)
  await expect(latest(sample)).rejects.toMatchObject(uncertain(ids[1], ids[2]))
  await expect(latest(sample, 0)).rejects.toMatchObject(uncertain(ids[1], ids[2]))
  // Also where all of them came later, one after the other, as copies do.
  await expect(latest(sample, 1)).rejects.toMatchObject(uncertain(ids[1], ids[2]))
})

test('an old primary that goes on beside the promoted one for long makes latest uncertain', async () => {
  const { sample, ids } = await withRecords([
    { timeline: 2, lsn: 100, stoppedHour: 1, storedHours: [1] },
    { timeline: 1, lsn: 200, stoppedHour: 2, storedHours: [2] },
  ])
  await expect(latest(sample)).rejects.toMatchObject(uncertain(...ids))
})

test('once the lineage that lives has gone further than the other, it is the latest', async () => {
  const { sample, ids } = await withRecords([
    ...ABANDONED,
    { timeline: 2, lsn: 201, stoppedHour: 30, storedHours: [30] },
  ])
  expect(await latest(sample)).toBe(ids[3])
})

test("one clock alone does not contradict: not a worker's, not that of a store that got a copy late", async () => {
  const wrongWorker = await withRecords([
    { timeline: 1, lsn: 100, stoppedHour: 9000, storedHours: [1] },
    { timeline: 1, lsn: 200, stoppedHour: 2, storedHours: [2] },
  ])
  expect(await latest(wrongWorker.sample)).toBe(wrongWorker.ids[1])
  const lateCopy = await withRecords([
    { timeline: 1, lsn: 100, stoppedHour: 1, storedHours: [9000] },
    { timeline: 1, lsn: 200, stoppedHour: 2, storedHours: [2] },
  ])
  expect(await latest(lateCopy.sample)).toBe(lateCopy.ids[1])
  const withinSlack = await withRecords([
    { timeline: 1, lsn: 100, stoppedHour: 1.2, storedHours: [1.2] },
    { timeline: 1, lsn: 200, stoppedHour: 1, storedHours: [1] },
  ])
  expect(await latest(withinSlack.sample)).toBe(withinSlack.ids[1])
})

test('two backups that no repository holds together are compared by when each was stored first', async () => {
  const { sample, ids } = await withRecords(
    [
      { timeline: 2, lsn: 200, stoppedHour: 10, storedHours: [10, undefined] },
      { timeline: 2, lsn: 60, stoppedHour: 20, storedHours: [undefined, 20] },
    ],
    2,
  )
  await expect(latest(sample)).rejects.toMatchObject(uncertain(...ids))
  expect(await latest(sample, 0)).toBe(ids[0])
})

test('the latest does not depend on which repository holds what: first within each system, then by time', async () => {
  // A later than B by LSN, B later than C and C later than A by time: taken in pairs there is no latest.
  const told = [
    { timeline: 1, lsn: 200, stoppedHour: 1, storedHours: [12] },
    { timeline: 1, lsn: 100, stoppedHour: 3, storedHours: [11] },
    { timeline: 1, lsn: 10, stoppedHour: 2, storedHours: [10], systemId: '7301234567890129999' },
  ]
  await fc.assert(
    fc.asyncProperty(fc.shuffledSubarray([0, 1, 2], { minLength: 3 }), async (order) => {
      const spread = told.map((one, n) => ({
        ...one,
        storedHours: order.map((i) => (i === n ? one.storedHours[0] : undefined)),
      }))
      const { sample, ids } = await withRecords(spread, 3)
      expect(await latest(sample)).toBe(ids[2])
    }),
    { numRuns: 12 },
  )
})

test('a repository that fails in the middle of the search makes latest uncertain, unless another one is named', async () => {
  const { sample, ids } = await withRecords([{ timeline: 1, lsn: 1, stoppedHour: 1, storedHours: [1, 1] }], 2)
  sample.stores[1]?.faults.always('list', new StoreUnavailableError('list', 'memory://1'))
  await expect(latest(sample)).rejects.toMatchObject({
    code: 'LATEST_UNCERTAIN',
    facts: { unavailable: [{ name: 'b', problem: { code: 'STORE_UNAVAILABLE' } }] },
  })
  expect(await latest(sample, 0)).toBe(ids[0])
  await expect(latest(sample, 1)).rejects.toThrow(StoreUnavailableError)
})

test('the newest record, damaged in one repository, is read from another; damaged in all, nothing is the latest', async () => {
  const { sample, ids } = await withRecords(
    [
      { timeline: 1, lsn: 1, stoppedHour: 1, storedHours: [1, 1] },
      { timeline: 1, lsn: 2, stoppedHour: 2, storedHours: [2, 2] },
    ],
    2,
  )
  const spoil = (i: number): void => {
    const store = sample.stores[i]
    store?.corrupt(store.names('clusters/').at(-1) ?? '', (bytes) => void (bytes[40] = 0))
  }
  spoil(0)
  expect(await latest(sample)).toBe(ids[1])
  await expect(latest(sample, 0)).rejects.toMatchObject({ code: 'SIGNATURE_REFUSED' })
  spoil(1)
  await expect(latest(sample)).rejects.toMatchObject({ code: 'SIGNATURE_REFUSED' })
})
