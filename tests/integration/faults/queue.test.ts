/** Workers and the queue below whole operations: Redis wiped in the middle, one operation in several processes at once. */
import { type TestRedis, random, seed, startRedis, runTool } from '@tidemark/testkit'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Run, beginRun } from '../../chaos/engines.ts'
import type { BackupResult, RestoreResult } from '@tidemark/contracts'
import { type Scene, afterBackup, afterRestore, equalTo } from '../../support/aftermath.ts'
import { type Outcome, backupHere, listHere, outcomeOf } from '../../support/operate.ts'
import { FaultBench } from './fixture.ts'

const chance = random(seed())
const MiB = 1_048_576

let bench: FaultBench
let redis: TestRedis
beforeAll(async () => {
  bench = await FaultBench.start()
  redis = await startRedis()
})
afterAll(async () => {
  await redis?.[Symbol.asyncDispose]()
  await bench?.[Symbol.asyncDispose]()
})

let prefixes = 0
async function queued(): Promise<Scene & AsyncDisposable> {
  const scene = await bench.scene()
  prefixes += 1
  await scene.fleet.configure({ redis: { url: redis.url, prefix: `{faults-${prefixes}}` } })
  return scene
}

const wipe = (): Promise<unknown> => runTool('redis-cli', ['-p', String(redis.port), 'FLUSHALL'])

test('Redis wiped in mid-backup: nothing half is listed, and the queue takes new work at once', async () => {
  await using scene = await queued()
  const wiped = bench.server.at({ direction: 'down', bytes: chance.integer(MiB, 20 * MiB), said: 'BASE_BACKUP' }, wipe)
  {
    await using run = await beginRun('fleet', scene.fleet, { do: 'backup' })
    await wiped
    // Nobody knows of the operation any more, so nobody can be told how it ended.
    expect(await run.outcome).toEqual({ kind: 'killed' })
  }
  const known = await afterBackup(scene, { kind: 'killed' })
  await using again: Run = await beginRun('fleet', scene.fleet, { do: 'backup' })
  const outcome = (await again.outcome) as Outcome<BackupResult>
  expect(outcome).toMatchObject({ kind: 'succeeded' })
  const listing = await afterBackup(scene, outcome)
  expect(listing[0]?.backups.length).toBeGreaterThan(known[0]?.backups.length ?? 0)
})

test('Redis wiped in mid-restore: the directory is whole, or says that it is not', async () => {
  await using scene = await queued()
  const { backupId } = await backupHere(scene.fleet.config)
  const target = await scene.fleet.newTarget('target')
  {
    await using run = await beginRun('fleet', scene.fleet, { do: 'restore', backup: backupId, target })
    await wipe()
    await run.outcome
  }
  await afterRestore({ kind: 'killed' }, target, equalTo(bench.before))
  const elsewhere = await scene.fleet.newTarget('elsewhere')
  await using again = await beginRun('fleet', scene.fleet, { do: 'restore', backup: backupId, target: elsewhere })
  const outcome = (await again.outcome) as Outcome<RestoreResult>
  expect(outcome).toMatchObject({ kind: 'succeeded' })
  await afterRestore(outcome, elsewhere, equalTo(bench.before))
})

test('one operation in three processes at once leads to one backup', async () => {
  await using scene = await bench.scene()
  await using run = await beginRun('process', scene.fleet, { do: 'backup' }, { twins: 3 })
  const outcome = (await run.outcome) as Outcome<BackupResult>
  expect(outcome).toMatchObject({ kind: 'succeeded' })
  const [local] = await afterBackup(scene, outcome)
  expect(local?.backups).toHaveLength(1)
})

test('a process killed in mid-backup leaves nothing that is listed, and does not hinder the next one', async () => {
  await using scene = await bench.scene()
  const begun = Promise.withResolvers<Run>()
  const bytes = chance.integer(0, 40 * MiB)
  void bench.server.at({ direction: 'down', bytes }, async () => await (await begun.promise).kill())
  {
    await using run = await beginRun('process', scene.fleet, { do: 'backup' })
    begun.resolve(run)
    const outcome = (await run.outcome) as Outcome<BackupResult>
    expect(outcome).toEqual({ kind: 'killed' })
    await afterBackup(scene, outcome)
  }
  expect((await listHere(scene.fleet.config))[0]?.backups).toEqual([])
  await afterBackup(scene, await outcomeOf(backupHere(scene.fleet.config)))
})
