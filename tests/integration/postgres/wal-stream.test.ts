import { Redacted, formatLsn, segmentNumber, segmentStart, walFileName, type Lsn } from '@tidemark/kernel'
import {
  ServerShutdownError,
  SlotsExhaustedError,
  SyncStandbyRefusedError,
  WalRemovedError,
  WalStalledError,
  connectReplication,
  openWalStream,
  readTimelineHistory,
  runBaseBackup,
  type WalSegment,
  type WalStream,
} from '@tidemark/postgres'
import { startPostgres, until, type TestPostgres } from '@tidemark/testkit'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { sinkWith } from './data-directory-sink.ts'
import { fill, noDeadline, targetOf } from './server-target.ts'

let server: TestPostgres
beforeAll(async () => {
  server = await startPostgres({
    name: 'wal',
    settings: { fsync: 'off', max_wal_size: '4GB', max_replication_slots: '2' },
  })
})
afterAll(() => server[Symbol.asyncDispose]())
afterEach(async () => {
  await until(async () => (await server.query('SELECT FROM pg_replication_slots')).length === 0, {
    what: 'slots to go',
  })
})

/** Where the segment with the server's present position starts. */
async function presentSegment(stream: WalStream): Promise<Lsn> {
  const replication = await connectReplication(targetOf(server), noDeadline)
  await using _ = replication
  const { flushLsn } = await replication.identifySystem()
  return segmentStart(segmentNumber(flushLsn, stream.segmentBytes), stream.segmentBytes)
}

async function sameAsOnServer({ timeline, segment, bytes }: WalSegment): Promise<boolean> {
  const name = walFileName(timeline, segment, bytes.length)
  return (await readFile(join(server.dataDirectory, 'pg_wal', name))).equals(bytes)
}

test('the segments of a backup under load are byte for byte those of the server', async () => {
  await using wal = await openWalStream(targetOf(server, { applicationName: 'tidemark_test' }), noDeadline)
  const names: string[] = []
  const differing: string[] = []
  const sink = sinkWith({
    onStart: ({ startLsn, timeline }) =>
      wal.start({
        fromLsn: segmentStart(segmentNumber(startLsn, wal.segmentBytes), wal.segmentBytes),
        timeline,
        onSegment: async (segment) => {
          const name = walFileName(segment.timeline, segment.segment, wal.segmentBytes)
          names.push(name)
          if (!(await sameAsOnServer(segment))) differing.push(name)
        },
      }),
  })
  const load = fill(server, 'loaded', 80)
  const end = await runBaseBackup(
    targetOf(server),
    { label: 'load', checkpoint: 'fast', maxRateKiB: 40_000 },
    sink,
    noDeadline,
  )
  await load
  const finished = await wal.finishAt(end.stopLsn)

  expect(differing).toEqual([])
  const first = segmentNumber(end.startLsn, wal.segmentBytes)
  const last = segmentNumber((end.stopLsn - 1n) as Lsn, wal.segmentBytes)
  const needed = Array.from({ length: Number(last - first) + 1 }, (_, index) =>
    walFileName(1, first + BigInt(index), wal.segmentBytes),
  )
  expect(names.slice(0, needed.length)).toEqual(needed)
  expect(needed.length).toBeGreaterThan(1)
  expect(finished.confirmedLsn).toBeGreaterThanOrEqual(end.stopLsn)
  expect(finished.segments).toBe(names.length)
})

test('flush is reported only for what the consumer has confirmed, and frees the slot', async () => {
  await using wal = await openWalStream(targetOf(server), noDeadline, { statusIntervalMs: 50 })
  const gate = Promise.withResolvers<void>()
  const from = await presentSegment(wal)
  let offered = 0
  await wal.start({ fromLsn: from, timeline: 1, onSegment: () => ((offered += 1), gate.promise) })
  await server.query('CREATE TABLE switched (id int); SELECT pg_switch_wal()')
  await until(() => offered === 1)

  const flushed = async (): Promise<unknown> =>
    (await server.query('SELECT flush_lsn::text AS lsn FROM pg_stat_replication'))[0]?.['lsn']
  const written = async (): Promise<unknown> =>
    (await server.query('SELECT write_lsn > flush_lsn AS ahead FROM pg_stat_replication'))[0]?.['ahead']
  await until(async () => (await written()) === true)
  const before = await flushed()
  expect(before).toBe(formatLsn(from))
  gate.resolve()
  await until(async () => (await flushed()) !== before, { what: 'the confirmed position to advance' })
  await server.query('DROP TABLE switched')
})

test('a busy consumer stops the stream after two segments, and loses nothing', async () => {
  await using wal = await openWalStream(targetOf(server), noDeadline)
  const from = await presentSegment(wal)
  const gate = Promise.withResolvers<void>()
  const got: bigint[] = []
  const same: boolean[] = []
  await wal.start({
    fromLsn: from,
    timeline: 1,
    onSegment: async (segment) => {
      got.push(segment.segment)
      await gate.promise
      same.push(await sameAsOnServer(segment))
    },
  })
  await fill(server, 'backlog', 100)
  const [row] = await server.query<{ lsn: string }>('SELECT pg_switch_wal()::text AS lsn')
  const before = process.memoryUsage().arrayBuffers
  await until(async () => {
    const [sender] = await server.query("SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'walsender'")
    return sender?.['wait_event'] === 'WalSenderWriteData' || sender?.['wait_event'] === 'WalSenderMain'
  })
  expect(got.length).toBe(1)
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(40 * 1024 * 1024)
  gate.resolve()
  const [high, low] = (row?.lsn ?? '').split('/').map((part) => BigInt(`0x${part}`))
  await wal.finishAt((((high ?? 0n) << 32n) | (low ?? 0n)) as Lsn)
  expect(same.length).toBeGreaterThan(4)
  expect(same.every(Boolean)).toBe(true)
  expect(got).toEqual(Array.from(got, (_, index) => (got[0] ?? 0n) + BigInt(index)))
})

async function setSyncNames(names: string): Promise<void> {
  await server.query(`ALTER SYSTEM SET synchronous_standby_names = '${names}'`)
  await server.query('SELECT pg_reload_conf()')
  await until(
    async () => (await server.query('SHOW synchronous_standby_names'))[0]?.['synchronous_standby_names'] === names,
  )
}

test('the stream refuses to become a synchronous standby, whatever the role may see', async () => {
  await server.query("CREATE ROLE blind LOGIN REPLICATION PASSWORD 'secret'")
  await setSyncNames('*')
  try {
    for (const overrides of [{}, { user: 'blind', password: new Redacted('secret') }]) {
      await using wal = await openWalStream(targetOf(server, overrides), noDeadline)
      const from = await presentSegment(wal)
      await expect(wal.start({ fromLsn: from, timeline: 1, onSegment() {} })).rejects.toThrow(SyncStandbyRefusedError)
      await expect(wal.finished).rejects.toThrow(SyncStandbyRefusedError)
    }
  } finally {
    await setSyncNames('')
  }
})

test('a stream that is named in mid-flight stops counting as a standby, and works on', async () => {
  await using wal = await openWalStream(targetOf(server), noDeadline, { statusIntervalMs: 20, syncCheckIntervalMs: 50 })
  const from = await presentSegment(wal)
  let segments = 0
  await wal.start({ fromLsn: from, timeline: 1, onSegment: () => void (segments += 1) })
  const flushed = async (): Promise<unknown> =>
    (await server.query('SELECT flush_lsn FROM pg_stat_replication'))[0]?.['flush_lsn']
  await until(async () => (await flushed()) !== null)
  try {
    await setSyncNames('*')
    await until(async () => (await flushed()) === null, { what: 'the flush position to be withdrawn' })
    expect((await server.query('SELECT sync_state FROM pg_stat_replication'))[0]).toEqual({ sync_state: 'async' })
  } finally {
    await setSyncNames('')
  }
  await until(async () => (await flushed()) !== null)
  await server.query('CREATE TABLE renamed (id int); DROP TABLE renamed; SELECT pg_switch_wal()')
  await until(() => segments > 0)
})

test('WAL that does not come is reported, not waited for', async () => {
  await using wal = await openWalStream(targetOf(server), noDeadline, { stallTimeoutMs: 100 })
  const from = await presentSegment(wal)
  await wal.start({ fromLsn: from, timeline: 1, onSegment() {} })
  await expect(wal.finishAt((from + 1n) as Lsn)).rejects.toThrow(WalStalledError)
})

test('an idle server is not taken for a dead one', async () => {
  await using wal = await openWalStream(targetOf(server), noDeadline, { idleTimeoutMs: 200, statusIntervalMs: 40 })
  const from = await presentSegment(wal)
  let segments = 0
  await wal.start({ fromLsn: from, timeline: 1, onSegment: () => void (segments += 1) })
  let failed = false
  wal.finished.catch(() => (failed = true))
  const since = performance.now()
  await until(() => performance.now() - since > 600)
  expect(failed).toBe(false)
  await server.query('CREATE TABLE awake (id int); DROP TABLE awake; SELECT pg_switch_wal()')
  await until(() => segments > 0)
})

test("a consumer's error ends the stream with that error", async () => {
  await using wal = await openWalStream(targetOf(server), noDeadline)
  const full = new Error('disk full')
  await wal.start({ fromLsn: await presentSegment(wal), timeline: 1, onSegment: () => Promise.reject(full) })
  await server.query('CREATE TABLE broken (id int); DROP TABLE broken; SELECT pg_switch_wal()')
  await expect(wal.finished).rejects.toBe(full)
})

test('no free slot, removed WAL and a missing history file are each their own error', async () => {
  await using first = await openWalStream(targetOf(server), noDeadline)
  await using second = await openWalStream(targetOf(server), noDeadline)
  await expect(openWalStream(targetOf(server), noDeadline)).rejects.toThrow(SlotsExhaustedError)
  await first.start({ fromLsn: 0x1000000n as Lsn, timeline: 1, onSegment() {} })
  await expect(first.finished).rejects.toThrow(WalRemovedError)
  await expect(second.timelineHistory(7)).rejects.toThrow(WalRemovedError)
})

test('a server that shuts down ends the stream as such; a promoted one has its history', async () => {
  await using own = await startPostgres({ name: 'ending', settings: { fsync: 'off' } })
  await using wal = await openWalStream(targetOf(own), noDeadline)
  await wal.start({
    fromLsn: segmentStart(segmentNumber(wal.identity.flushLsn, wal.segmentBytes), wal.segmentBytes),
    timeline: 1,
    onSegment() {},
  })
  // Held up by us, the server would wait for wal_sender_timeout: a minute.
  const since = performance.now()
  await Promise.all([own.stop('fast'), expect(wal.finished).rejects.toThrow(ServerShutdownError)])
  expect(performance.now() - since).toBeLessThan(20_000)
  await own.start()
  await own.stop('fast')
  await writeFile(join(own.dataDirectory, 'recovery.signal'), '')
  await writeFile(join(own.dataDirectory, 'postgresql.auto.conf'), "restore_command = 'false'\n")
  await own.start()
  await until(async () => (await own.query('SELECT NOT pg_is_in_recovery() AS up'))[0]?.['up'] === true)
  await using replication = await connectReplication(targetOf(own), noDeadline)
  expect((await replication.identifySystem()).timeline).toBe(2)
  const history = await readTimelineHistory(replication, 2)
  expect(history.filename).toBe('00000002.history')
  expect(history.bytes.equals(await readFile(join(own.dataDirectory, 'pg_wal/00000002.history')))).toBe(true)
})
