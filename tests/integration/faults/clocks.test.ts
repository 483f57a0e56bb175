/** Workers whose wall clock is wrong, or is set while they work. */
import { type Clock, systemClock } from '@tidemark/kernel'
import { startPostgres, type TestPostgres } from '@tidemark/testkit'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { afterBackup, type Scene } from '../../support/aftermath.ts'
import { Fleet } from '../../support/fleet.ts'
import { backupHere, initHere, listHere, newBackupOperationId, outcomeOf } from '../../support/operate.ts'
import { fillSmallCluster } from '../../support/small-cluster.ts'

const HOUR = 3_600_000

let source: TestPostgres
beforeAll(async () => {
  source = await startPostgres({ name: 'clocks' })
  await fillSmallCluster(source)
})
afterAll(() => source?.[Symbol.asyncDispose]())

async function newScene(): Promise<Scene & AsyncDisposable> {
  const fleet = await Fleet.create({
    clusters: { main: source },
    repositories: { local: { folder: 'local' } },
    packBytes: '1MiB',
  })
  await initHere(fleet.config)
  return {
    fleet,
    source,
    folders: ['local'],
    debris: new Set(),
    [Symbol.asyncDispose]: () => fleet[Symbol.asyncDispose](),
  }
}

/** The wall clock alone is wrong; deadlines run by the other one. */
class WrongClock implements Clock {
  offsetMs: number
  constructor(offsetMs: number) {
    this.offsetMs = offsetMs
  }
  now(): Date {
    return new Date(Date.now() + this.offsetMs)
  }
  monotonicMs(): number {
    return systemClock.monotonicMs()
  }
  sleep(ms: number, signal: AbortSignal): Promise<void> {
    return systemClock.sleep(ms, signal)
  }
}

test.each([2 * HOUR, -2 * HOUR])('a worker whose clock is wrong by %d ms makes a whole backup', async (offsetMs) => {
  await using scene = await newScene()
  const outcome = await outcomeOf(backupHere(scene.fleet.config, { clock: new WrongClock(offsetMs) }))
  expect(outcome).toMatchObject({ kind: 'succeeded' })
  await afterBackup(scene, outcome)
})

test.each([2 * HOUR, -2 * HOUR])(
  'an operation that a worker with a clock wrong by %d ms has finished is not done again by the next one',
  async (offsetMs) => {
    await using scene = await newScene()
    const operation = { operationId: newBackupOperationId(), requestedAt: new Date() }
    const first = await backupHere(scene.fleet.config, { ...operation, clock: new WrongClock(offsetMs) })
    const again = await backupHere(scene.fleet.config, operation)
    expect(again.backupId).toBe(first.backupId)
    const [local] = await listHere(scene.fleet.config)
    expect(local?.backups).toHaveLength(1)
  },
)

test.each([
  ['forward', 2 * HOUR],
  ['back', -2 * HOUR],
] as const)(
  'a clock that jumps %s by %d ms in mid-backup costs no backup: leases go by the store',
  async (_way, jumpMs) => {
    await using scene = await newScene()
    const clock = new WrongClock(0)
    const outcome = await outcomeOf(
      backupHere(scene.fleet.config, {
        clock,
        progress: ({ phase, bytesDone }) => {
          if (phase === 'copy' && bytesDone > 8_000_000) clock.offsetMs = jumpMs
        },
      }),
    )
    expect(outcome).toMatchObject({ kind: 'succeeded' })
    const [local] = await afterBackup(scene, outcome)
    expect(local?.backups).toHaveLength(1)
  },
)
