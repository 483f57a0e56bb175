/** One copy that fails keeps neither the others nor what follows from them; and what passes is never called hopeless. */
import { RelayedError, problemOf, silentLogger, systemClock } from '@tidemark/kernel'
import { type CommitRecord, ClusterLayout, type Repository, recordAt } from '@tidemark/repository'
import { CLUSTER, SYSTEM_ID, type SampleSet, newSampleSet, noDeadline, writeBackup } from '@tidemark/repository/testing'
import { StoreAccessDeniedError, StoreUnavailableError } from '@tidemark/storage'
import { expect, test } from 'vitest'
import type { CopyOutcome } from './copy-backup.ts'
import { type CopyPlan, copyWanted } from './copy-wanted.ts'

const layout = new ClusterLayout(CLUSTER, SYSTEM_ID)
const down = new StoreUnavailableError('get', 'memory://')
const denied = new StoreAccessDeniedError('get', 'memory://')

/** Sources a and b, target c, which missed all of these backups. */
async function withMissed(backups = 1): Promise<{ sample: SampleSet; records: CommitRecord[] }> {
  const sample = await newSampleSet([true, true, false])
  sample.stores[2]?.faults.always('put', down)
  const records: CommitRecord[] = []
  for (let i = 0; i < backups; i += 1)
    records.push((await writeBackup(sample, undefined, { stoppedAt: new Date(Date.UTC(2026, 0, 1, i)) })).record)
  sample.stores[2]?.faults.clear()
  return { sample, records }
}

async function copyAll(
  { sample, records }: { sample: SampleSet; records: readonly CommitRecord[] },
  plan: Partial<CopyPlan> = {},
): Promise<{ done: string[]; result: Promise<CopyOutcome[]> }> {
  const [a, b, to] = sample.set.repositories as [Repository, Repository, Repository]
  const wanted = records.map((record) => ({ at: recordAt(record), holders: [a, b] }))
  const done: string[] = []
  const onDone = async ({ backupId, outcome }: CopyOutcome): Promise<void> => void done.push(`${outcome} ${backupId}`)
  const deps = { clock: systemClock, logger: silentLogger, signal: noDeadline, progress: () => {} }
  const result = copyWanted({ to, wanted, sources: [a, b], unavailable: [], ...plan }, onDone, {
    ...deps,
    publicKey: sample.set.publicKey,
  })
  await result.catch(() => {})
  return { done, result }
}

test('each backup is told as soon as it is copied, also where another one fails, and also where it was there', async () => {
  const played = await withMissed(3)
  const [one, two, three] = played.records.map(({ backupId }) => backupId)
  for (const store of played.sample.stores.slice(0, 2)) store.lose(`${layout.base(two ?? '')}pack-00001`)
  const first = await copyAll(played)
  expect(first.done).toEqual([`copied ${one}`, `copied ${three}`])
  await expect(first.result).rejects.toMatchObject({ code: 'COPY_INCOMPLETE', facts: { copied: [one, three] } })
  const again = await copyAll(played)
  expect(again.done).toEqual([`present ${one}`, `present ${three}`])
})

test('what passes, or an operator can set right, is said before what never helps, whichever repository was asked first', async () => {
  for (const [passing, retry] of [
    [down, 'backoff'],
    [denied, 'after-operator'],
  ] as const) {
    const played = await withMissed()
    const [record] = played.records
    played.sample.stores[0]?.lose(`${layout.base(record?.backupId ?? '')}pack-00001`)
    played.sample.stores[1]?.faults.always('get', passing)
    const { result } = await copyAll(played)
    await expect(result).rejects.toMatchObject({ code: 'COPY_INCOMPLETE', retry })
  }
})

test('a repository that does not answer may hold the backup: it is not given up', async () => {
  const played = await withMissed()
  for (const store of played.sample.stores.slice(0, 2))
    store.lose(`${layout.base(played.records[0]?.backupId ?? '')}pack-00001`)
  await expect((await copyAll(played)).result).rejects.toMatchObject({ retry: 'never' })
  const unavailable = [{ problem: problemOf(new RelayedError(problemOf(down))) }]
  await expect((await copyAll(played, { unavailable })).result).rejects.toMatchObject({ retry: 'backoff' })
})

test('a segment with other contents in the target is an incident: no other source is asked, and no outage hides it', async () => {
  const played = await withMissed()
  const segment =
    played.sample.stores[0]?.names(`${layout.folder}wal/`).find((name) => /[0-9A-F]{24}-/.test(name)) ?? ''
  const other = `${segment.slice(0, segment.lastIndexOf('-'))}-${'ab'.repeat(16)}`
  await played.sample.stores[2]?.put(other, Buffer.alloc(1000), { signal: noDeadline })
  const asked: string[] = []
  const second = played.sample.stores[1]
  if (second !== undefined) second.faults.latency = (method, name) => void asked.push(`${method} ${name ?? ''}`)
  const { result } = await copyAll(played, { unavailable: [{ problem: problemOf(down) }] })
  await expect(result).rejects.toMatchObject({
    retry: 'never',
    facts: { failed: [{ problem: { code: 'WAL_SEGMENT_CONFLICT' } }] },
  })
  expect(asked).toEqual([])
})
