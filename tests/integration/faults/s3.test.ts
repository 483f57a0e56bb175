/** Whole backups and restores over an S3 server that misbehaves. How the driver takes each answer is tested beside it. */
import { random, seed, type S3Rule } from '@tidemark/testkit'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { afterBackup, afterRestore, equalTo } from '../../support/aftermath.ts'
import { backupHere, outcomeOf, restoreHere } from '../../support/operate.ts'
import { FaultBench } from './fixture.ts'

const chance = random(seed())
const PACK = /\/pack-\d+/
const RECORD = /\/records\//
const down = { kind: 'status', status: 500, code: 'InternalError' } as const
const slowDown = { kind: 'status', status: 503, code: 'SlowDown' } as const

let bench: FaultBench
beforeAll(async () => {
  bench = await FaultBench.start()
  await bench.s3()
})
afterAll(() => bench?.[Symbol.asyncDispose]())

const PASSING: readonly (readonly [string, readonly S3Rule[]])[] = [
  ['500 to some of everything', [0, 3, 7, 12].map((skip) => ({ fault: down, skip }))],
  [
    'packs whose uploads hang, are reset, or are too many for the store',
    [
      { fault: { kind: 'hang' }, method: 'PUT', path: PACK, skip: 2 },
      { fault: { kind: 'reset' }, method: 'PUT', path: PACK, skip: 3 },
      { fault: slowDown, method: 'PUT', path: PACK, skip: 5, times: 2 },
    ],
  ],
  [
    'lost answers to a pack and to the record',
    [PACK, RECORD].map((path) => ({ fault: { kind: 'lose-answer' }, method: 'PUT', path }) as const),
  ],
  ['listings cut short', [{ fault: { kind: 'truncate', bytes: 100 }, method: 'GET', path: /list-type=2/, times: 2 }]],
]
test.each(PASSING)('%s: the backup succeeds, and is whole', async (_title, rules) => {
  await using scene = await bench.scene({ offsite: await bench.bucket() })
  const store = await bench.s3()
  const earlier = store.faults()
  store.add(...rules)

  const outcome = await outcomeOf(backupHere(scene.fleet.config))

  expect(outcome).toMatchObject({ kind: 'succeeded' })
  expect(store.faults()).toBeGreaterThan(earlier)
  store.heal()
  const [offsite] = await afterBackup(scene, outcome)
  expect(offsite?.backups).toHaveLength(1)
})

const LASTING: readonly (readonly [string, S3Rule, string])[] = [
  ['500 from a pack on', { fault: down, path: PACK, skip: 2, times: Infinity }, 'STORE_UNAVAILABLE'],
  ['503 from the file list on', { fault: slowDown, path: /\/files-/, times: Infinity }, 'STORE_UNAVAILABLE'],
  [
    'access withdrawn in the middle',
    {
      fault: { kind: 'status', status: 403, code: 'AccessDenied' },
      method: 'PUT',
      path: PACK,
      skip: 1,
      times: Infinity,
    },
    'STORE_ACCESS_DENIED',
  ],
  [
    'every upload hangs',
    { fault: { kind: 'hang' }, method: 'PUT', path: PACK, skip: 1, times: Infinity },
    'STORE_UNAVAILABLE',
  ],
  ['the record is refused', { fault: down, method: 'PUT', path: RECORD, times: Infinity }, 'STORE_UNAVAILABLE'],
]
test.each(LASTING)(
  '%s: the backup fails by its cause, lists nothing, and the next one succeeds',
  async (_title, rule, code) => {
    await using scene = await bench.scene({ offsite: await bench.bucket() })
    const store = await bench.s3()
    store.add(rule)

    const outcome = await outcomeOf(backupHere(scene.fleet.config))
    store.heal()

    expect(outcome).toMatchObject({
      kind: 'failed',
      problem: { code: 'REQUIRED_REPOSITORY_FAILED', facts: { repository: 'offsite', causeCode: code } },
    })
    const [offsite] = await afterBackup(scene, outcome)
    expect(offsite?.backups).toEqual([])
    expect(await outcomeOf(backupHere(scene.fleet.config))).toMatchObject({ kind: 'succeeded' })
  },
)

test('a record that was stored while every answer is lost is found by the next try of the same operation: one operation, one backup', async () => {
  await using scene = await bench.scene({ offsite: await bench.bucket() })
  const store = await bench.s3()
  const operation = { operationId: 'backup-00000000000000000000', requestedAt: new Date() }
  store.add({ fault: { kind: 'lose-answer' }, path: RECORD, times: Infinity })
  const outcome = await outcomeOf(backupHere(scene.fleet.config, operation))
  store.heal()
  expect(outcome).toMatchObject({ kind: 'failed', problem: { retry: 'backoff' } })
  const [before] = await afterBackup(scene, outcome)

  const again = await outcomeOf(backupHere(scene.fleet.config, operation))

  const [after] = await afterBackup(scene, again)
  expect(after?.backups.map(({ backupId }) => backupId)).toEqual([
    again.kind === 'succeeded' ? again.result.backupId : 'none',
  ])
  expect(before?.backups.length).toBeLessThanOrEqual(1)
})

test.each([
  ['dies in mid-backup', { fault: { kind: 'reset' }, path: PACK, skip: 3, times: Infinity }],
  ['hangs in mid-backup', { fault: { kind: 'hang' }, path: PACK, skip: 3, times: Infinity }],
] as const)(
  'an optional repository that %s is dropped, said to be, and takes part again once it is back',
  async (_title, rule) => {
    await using scene = await bench.scene({
      local: { folder: 'local' },
      offsite: await bench.bucket({ required: false }),
    })
    const store = await bench.s3()
    store.add(rule)
    const outcome = await outcomeOf(backupHere(scene.fleet.config))
    store.heal()

    expect(outcome).toMatchObject({
      kind: 'succeeded',
      result: {
        repositories: [
          { name: 'local', outcome: 'stored' },
          { name: 'offsite', outcome: 'dropped' },
        ],
      },
    })
    const listing = await afterBackup(scene, outcome)
    expect(listing.map(({ repository, backups }) => [repository, backups.length])).toEqual([
      ['local', 1],
      ['offsite', 0],
    ])
    const again = await outcomeOf(backupHere(scene.fleet.config))
    expect(again).toMatchObject({
      result: {
        repositories: [
          { name: 'local', outcome: 'stored' },
          { name: 'offsite', outcome: 'stored' },
        ],
      },
    })
    await afterBackup(scene, again)
  },
)

test('a store that stops obeying conditional puts after it was asked: racing operations still leave only whole backups', async () => {
  await using scene = await bench.scene({ offsite: await bench.bucket() })
  const store = await bench.s3()
  const probes = store.seen.length
  store.add({ fault: { kind: 'overwrite' }, method: 'PUT', path: /\/(records|wal|keys)\//, times: Infinity })
  const first = await outcomeOf(backupHere(scene.fleet.config))
  store.heal()
  store.add({ fault: { kind: 'lie-stored' }, method: 'PUT', path: /\/(records|wal|keys)\//, times: Infinity })
  const second = await outcomeOf(backupHere(scene.fleet.config))
  store.heal()

  expect([first.kind, second.kind]).toEqual(['succeeded', 'succeeded'])
  expect(store.seen.slice(probes).filter(({ fault }) => fault === 'overwrite').length).toBeGreaterThan(0)
  await afterBackup(scene, first)
  const [offsite] = await afterBackup(scene, second)
  expect(offsite?.backups).toHaveLength(2)
})

test('a store that ignores conditions from the start is found out by the probe, and holds whole backups', async () => {
  await using scene = await bench.scene({ offsite: await bench.bucket() })
  const store = await bench.s3()
  store.add({ fault: { kind: 'overwrite' }, method: 'PUT', path: /\/(records|wal|scratch)\//, times: 2 })
  const outcome = await outcomeOf(backupHere(scene.fleet.config))
  store.heal()
  expect(outcome.kind).toBe('succeeded')
  await afterBackup(scene, outcome)
})

const READ_FAULTS: readonly (readonly [string, readonly S3Rule[]])[] = [
  [
    '500 and SlowDown to some reads',
    [
      { fault: down, method: 'GET', path: PACK, skip: 1 },
      { fault: slowDown, method: 'GET', path: PACK, skip: 3 },
    ],
  ],
  ['a pack cut short', [{ fault: { kind: 'truncate', bytes: 1000 }, method: 'GET', path: PACK, skip: 1, times: 2 }]],
  ['a read that hangs', [{ fault: { kind: 'hang' }, method: 'GET', path: PACK, skip: 1 }]],
  ['a slow read', [{ fault: { kind: 'slow', bytesPerSecond: 4_000_000 }, method: 'GET', path: PACK, times: 2 }]],
]
test.each(READ_FAULTS)('%s: the restore succeeds, and is equal', async (_title, rules) => {
  const scene = await readable()
  const store = await bench.s3()
  const earlier = store.faults()
  store.add(...rules)
  const target = await scene.fleet.newTarget(`target-${chance.integer(0, 1e9)}`)
  const outcome = await outcomeOf(restoreHere(scene.fleet.config, 'latest', target))
  store.heal()
  expect(outcome).toMatchObject({ kind: 'succeeded' })
  expect(store.faults()).toBeGreaterThan(earlier)
  await afterRestore(outcome, target, equalTo(bench.before))
})

test.each([
  [
    '500 to every read from a pack on',
    { fault: down, method: 'GET', path: PACK, skip: 2, times: Infinity },
    'STORE_UNAVAILABLE',
  ],
  [
    'every read of a pack hangs',
    { fault: { kind: 'hang' }, method: 'GET', path: PACK, skip: 2, times: Infinity },
    'STORE_UNAVAILABLE',
  ],
  [
    'a pack with a bit that always is another',
    { fault: { kind: 'flip', byte: 12_345 }, method: 'GET', path: /\/pack-00003/, times: Infinity },
    'BACKUP_INCOMPLETE',
  ],
] as const)(
  '%s: the restore fails by its cause, and leaves the target as empty as it was',
  async (_title, rule, code) => {
    const scene = await readable()
    const store = await bench.s3()
    store.add(rule)
    const target = await scene.fleet.newTarget(`target-${chance.integer(0, 1e9)}`)
    const outcome = await outcomeOf(restoreHere(scene.fleet.config, 'latest', target))
    store.heal()
    expect(outcome).toMatchObject({ kind: 'failed', problem: { code } })
    await afterRestore(outcome, target, equalTo(bench.before))
  },
)

test('one bit of a pack that changed on its way is never taken for the backup', async () => {
  const scene = await readable()
  const store = await bench.s3()
  store.add({ fault: { kind: 'flip', byte: chance.integer(0, 1_000_000) }, method: 'GET', path: PACK })
  const target = await scene.fleet.newTarget(`target-${chance.integer(0, 1e9)}`)
  const outcome = await outcomeOf(restoreHere(scene.fleet.config, 'latest', target))
  store.heal()
  const ending = outcome.kind === 'failed' ? outcome.problem.code : outcome.kind
  expect(ending).toBeOneOf(['succeeded', 'BACKUP_INCOMPLETE'])
  await afterRestore(outcome, target, equalTo(bench.before))
})

/** One backup that all tests of reading share: they change nothing in it. */
let shared: Awaited<ReturnType<FaultBench['scene']>> | undefined
afterAll(() => shared?.[Symbol.asyncDispose]())
async function readable(): Promise<NonNullable<typeof shared>> {
  if (shared === undefined) {
    shared = await bench.scene({ offsite: await bench.bucket() })
    await backupHere(shared.fleet.config)
  }
  return shared
}
