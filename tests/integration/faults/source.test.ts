/** The way to the database breaks, stalls, or the database itself goes, at chosen bytes of a backup. */
import { random, seed } from '@tidemark/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { afterBackup, afterRestore, equalTo } from '../../support/aftermath.ts'
import { backupHere, outcomeOf, restoreHere } from '../../support/operate.ts'
import { FaultBench } from './fixture.ts'

const chance = random(seed())
const MiB = 1_048_576
/** Said on the connection that a base backup is sent over, and on the one that WAL is. */
const COPY = 'BASE_BACKUP'
const WAL = 'START_REPLICATION'

let bench: FaultBench
beforeAll(async () => {
  bench = await FaultBench.start()
})
afterAll(() => bench?.[Symbol.asyncDispose]())

/** Somewhere in the copy, which is about 34 MiB. */
const midCopy = (): number => chance.integer(MiB / 4, 24 * MiB)

describe.each([
  ['the copy is reset', COPY, midCopy, 'reset', ['PG_CONNECTION_LOST']],
  ['the copy ends early', COPY, midCopy, 'end', ['PG_CONNECTION_LOST']],
  ['the WAL stream alone is reset', WAL, () => chance.integer(1, 8 * MiB), 'reset', ['PG_CONNECTION_LOST']],
  ['the WAL stream alone ends early', WAL, () => chance.integer(1, 8 * MiB), 'end', ['PG_CONNECTION_LOST']],
] as const)('%s', (_title, said, bytes, kind, codes) => {
  test('the backup fails by its cause, lists nothing, and the next one succeeds', async () => {
    await using scene = await bench.scene()
    const { config } = scene.fleet
    const cut = bench.server.at({ direction: 'down', bytes: bytes(), said }, (connection) => connection.cut(kind))

    const outcome = await outcomeOf(backupHere(config))
    await cut

    expect(outcome).toMatchObject({ kind: 'failed', problem: { code: expect.toBeOneOf([...codes]), retry: 'backoff' } })
    const listing = await afterBackup(scene, outcome)
    expect(listing.map(({ backups }) => backups)).toEqual([[]])
    expect(await outcomeOf(backupHere(config))).toMatchObject({ kind: 'succeeded' })
  })
})

test.each([
  ['the copy', COPY, 'BASE_BACKUP'],
  ['the WAL stream', WAL, 'START_REPLICATION'],
] as const)('%s stalls without a word: the backup gives it up at its own deadline', async (_title, said, during) => {
  await using scene = await bench.scene()
  const stalled = bench.server.at({ direction: 'down', bytes: said === COPY ? midCopy() : 1, said }, () =>
    bench.server.stall(said),
  )
  // The copy must not end before the WAL stream is given up.
  if (said === WAL)
    void bench.server.at({ direction: 'down', bytes: MiB, said: COPY }, () => bench.server.slowTo(4 * MiB))

  const outcome = await outcomeOf(backupHere(scene.fleet.config))
  await stalled
  // What was held back reaches the server only now: until then it cannot know.
  bench.server.heal()

  expect(outcome).toMatchObject({ kind: 'failed', problem: { code: 'PG_CONNECTION_LOST', facts: { during } } })
  const listing = await afterBackup(scene, outcome)
  expect(listing.map(({ backups }) => backups)).toEqual([[]])
})

test('a server that is reached and never answers is given up at the deadline of logging in', async () => {
  await using scene = await bench.scene()
  bench.server.stall()
  const outcome = await outcomeOf(backupHere(scene.fleet.config))
  bench.server.heal()
  expect(outcome).toMatchObject({ kind: 'failed', problem: { code: 'PG_UNREACHABLE', retry: 'backoff' } })
  await afterBackup(scene, outcome)
})

test('a slow line to the database makes a slow backup, not a broken one', async () => {
  await using scene = await bench.scene()
  void bench.server.at({ direction: 'down', bytes: 20 * MiB, said: COPY }, () => bench.server.slowTo(8 * MiB))
  const outcome = await outcomeOf(backupHere(scene.fleet.config))
  bench.server.heal()
  expect(outcome).toMatchObject({ kind: 'succeeded' })
  await afterBackup(scene, outcome)
})

test.each(['fast', 'immediate'] as const)(
  'the database is stopped (%s) in mid-copy: the backup fails by its cause, and the next one is whole once it is back',
  async (mode) => {
    await using scene = await bench.scene()
    const { config } = scene.fleet
    let stopping: Promise<void> | undefined
    // A fast shutdown waits for its walsenders: held back, they would wait for us.
    const stopped = bench.server.at({ direction: 'down', bytes: midCopy(), said: COPY }, () => {
      stopping = bench.source.stop(mode)
    })

    const outcome = await outcomeOf(backupHere(config))
    await stopped
    await stopping
    await bench.source.start()

    expect(outcome).toMatchObject({
      kind: 'failed',
      problem: { code: expect.toBeOneOf(['PG_CONNECTION_LOST', 'PG_SHUTDOWN']) },
    })
    expect((await afterBackup(scene, outcome)).map(({ backups }) => backups)).toEqual([[]])
    await afterBackup(scene, await outcomeOf(backupHere(config)))
    const target = await scene.fleet.newTarget('target')
    await afterRestore(await outcomeOf(restoreHere(config, 'latest', target)), target, equalTo(bench.before))
  },
)
