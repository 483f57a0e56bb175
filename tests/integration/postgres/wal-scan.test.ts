import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Lsn, formatLsn, parseLsn, segmentNumber, walFileName } from '@tidemark/kernel'
import { type WalRecord, WalRecordScanner, scanTablespaceChanges } from '@tidemark/postgres'
import {
  type TestPostgres,
  TemporaryFolder,
  random,
  seed,
  startPostgres,
  testedPostgresVersions,
} from '@tidemark/testkit'
import { describe, expect, test } from 'vitest'

const MiB = 1_048_576
/** In the order of src/include/access/rmgrlist.h. */
const NAMES = (
  'XLOG Transaction Storage CLOG Database Tablespace MultiXact RelMap Standby Heap2 Heap Btree Hash Gin Gist Sequence ' +
  'SPGist BRIN CommitTs ReplicationOrigin Generic LogicalMessage'
).split(' ')
const RM_TBLSPC_ID = NAMES.indexOf('Tablespace')

describe.each(testedPostgresVersions())('PostgreSQL %i', (version) => {
  test('every record of real WAL is found where the server finds it, and damage never makes one up', async () => {
    const source = random(seed())
    await using folder = await TemporaryFolder.create('wal-scan')
    // The smallest segments there are: records cross many.
    await using server = await startPostgres({
      version,
      initdbArgs: ['--wal-segsize=1'],
      settings: { wal_level: 'logical', wal_keep_size: '1GB', max_wal_size: '1GB', allow_in_place_tablespaces: 'on' },
    })
    await server.query('CREATE EXTENSION pg_walinspect')
    const from = await position(server, 'pg_switch_wal()')
    const locations = [await folder.serverFolder('first'), await folder.serverFolder('sécond place')]
    await makeWal(server, source, locations)
    const to = await position(server, 'pg_switch_wal()')
    const segments = await readSegments(server, from, to)
    const truth = await recordsByServer(server, from, to)
    const all = NAMES.map((_, manager) => manager)

    // From every place the scan may begin at, most of them inside of a record.
    for (const skipped of [0, ...Array.from({ length: 3 }, () => source.integer(0, segments.length - 2))]) {
      const found = scan(segments, skipped, all).records.map(lineOf)
      const start = segments[skipped]?.start ?? 0n
      const expected = truth.filter(({ lsn }) => lsn >= start).map(({ line }) => line)
      // As one text: a comparison of 50,000 objects takes minutes.
      expect(found.length).toBe(expected.length)
      expect(found.join('\n') === expected.join('\n')).toBe(true)
    }
    const changes = scanTablespaceChanges(scan(segments, 0, [RM_TBLSPC_ID]).records)
    expect(changes.map((change) => (change.kind === 'create' ? change.location : 'drop'))).toEqual([
      locations[0],
      '',
      locations[1],
      'drop',
      'drop',
    ])
    const oids = changes.map(({ oid }) => oid)
    expect(oids.slice(3)).toEqual([oids[2], oids[1]])

    const byLsn = new Map(scan(segments, 0, all).records.map((record) => [record.lsn, record]))
    for (let round = 0; round < 10; round += 1) {
      const index = source.integer(0, segments.length - 1)
      const damaged = segments.map((segment, at) => (at === index ? flipOne(segment, source) : segment))
      const { records, ended } = scan(damaged, 0, round % 2 === 0 ? all : [RM_TBLSPC_ID])
      const madeUp = records.filter((record) => {
        const real = byLsn.get(record.lsn)
        return real === undefined || lineOf(real) !== lineOf(record) || !real.data.equals(record.data)
      })
      expect(madeUp).toEqual([])
      // Where something is missing of all records, the scan says where it stopped.
      expect(round % 2 === 1 || records.length === byLsn.size || ended !== undefined).toBe(true)
    }
  })
})

/** Tablespaces made and dropped among records of all sizes, some longer than a page, some than half a segment. */
async function makeWal(server: TestPostgres, source: ReturnType<typeof random>, locations: string[]): Promise<void> {
  const noise = async (): Promise<void> => {
    for (let round = 0; round < 5; round += 1) {
      const bytes = source.pick([source.integer(1, 60), source.integer(7_000, 9_000), source.integer(10_000, 600_000)])
      await server.query(`SELECT pg_logical_emit_message(false, 'noise', repeat('x', ${bytes}))`)
      await server.query(
        `INSERT INTO rows SELECT g, repeat('y', g % 300) FROM generate_series(1, ${source.integer(1, 2_000)}) g`,
      )
      if (round % 4 === 0) await server.query('SELECT pg_switch_wal(); CHECKPOINT')
    }
  }
  await server.query(
    'CREATE TABLE rows (n int PRIMARY KEY, text text); ALTER TABLE rows DROP CONSTRAINT rows_pkey; CREATE INDEX ON rows (n)',
  )
  await noise()
  await server.query(`CREATE TABLESPACE first LOCATION '${locations[0]}'`)
  await server.query("CREATE TABLESPACE inside LOCATION ''")
  await noise()
  await server.query(`CREATE TABLESPACE second LOCATION '${locations[1]}'`)
  await server.query('DROP TABLESPACE second')
  await noise()
  await server.query('DROP TABLESPACE inside')
  await noise()
}

async function position(server: TestPostgres, after: string): Promise<Lsn> {
  await server.query(`SELECT ${after}`)
  const [row] = await server.query<{ at: string }>('SELECT pg_current_wal_insert_lsn()::text AS at')
  const at = parseLsn(row?.at ?? '')
  return (at - (at % BigInt(MiB))) as Lsn
}

interface Segment {
  readonly start: bigint
  readonly bytes: Buffer
}

async function readSegments(server: TestPostgres, from: Lsn, to: Lsn): Promise<Segment[]> {
  const segments: Segment[] = []
  for (let number = segmentNumber(from, MiB); number < segmentNumber(to, MiB); number += 1n) {
    const bytes = await readFile(join(server.dataDirectory, 'pg_wal', walFileName(1, number, MiB)))
    segments.push({ start: number * BigInt(MiB), bytes })
  }
  return segments
}

/** What the server's own reader finds (pg_walinspect). */
async function recordsByServer(server: TestPostgres, from: Lsn, to: Lsn): Promise<{ lsn: Lsn; line: string }[]> {
  const rows = await server.query<{ lsn: string; manager: string; xid: string; bytes: number }>(
    `SELECT start_lsn::text AS lsn, resource_manager AS manager, xid::text, main_data_length AS bytes
     FROM pg_get_wal_records_info('${formatLsn(from)}', '${formatLsn(to)}')`,
  )
  return rows
    .map(({ lsn, manager, xid, bytes }) => ({ lsn: parseLsn(lsn), line: `${lsn} ${manager} ${xid} ${bytes}` }))
    .filter(({ lsn }) => lsn < to)
}

function lineOf({ lsn, resourceManager, transactionId, data }: WalRecord): string {
  return `${formatLsn(lsn)} ${NAMES[resourceManager]} ${transactionId} ${data.length}`
}

function scan(segments: readonly Segment[], skipped: number, resourceManagers: number[]) {
  const scanner = new WalRecordScanner({
    walSegmentBytes: MiB,
    fromSegment: (segments[skipped]?.start ?? 0n) / BigInt(MiB),
    timeline: 1,
    resourceManagers,
  })
  const records = segments.slice(skipped).flatMap(({ bytes }) => scanner.push(bytes))
  return { records, ended: scanner.ended }
}

function flipOne({ start, bytes }: Segment, source: ReturnType<typeof random>): Segment {
  const copy = Buffer.from(bytes)
  const at = source.integer(0, copy.length - 1)
  copy[at] = (copy[at] ?? 0) ^ (1 << source.integer(0, 7))
  return { start, bytes: copy }
}
