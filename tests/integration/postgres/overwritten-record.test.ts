/** WAL whose server crashed in the middle of a record and went on without its end (XLOG_OVERWRITE_CONTRECORD). */
import { readFile, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { formatLsn, parseLsn, parseWalFileName, segmentStart } from '@tidemark/kernel'
import { WalRecordScanner, scanTablespaceChanges } from '@tidemark/postgres'
import { type TestPostgres, TemporaryFolder, startPostgres, testedPostgresVersions } from '@tidemark/testkit'
import { describe, expect, test } from 'vitest'

const MiB = 1_048_576

interface Insert {
  readonly at: bigint
  readonly file: string
}

async function insertAt(server: TestPostgres): Promise<Insert> {
  const [row] = await server.query<{ at: string; file: string }>(
    'SELECT lsn::text AS at, pg_walfile_name(lsn) AS file FROM pg_current_wal_insert_lsn() lsn',
  )
  return { at: parseLsn(row?.at ?? ''), file: row?.file ?? '' }
}

describe.each(testedPostgresVersions())('PostgreSQL %i', (version) => {
  test('a record that a crash cut off is passed over, and tablespaces made after it are found', async () => {
    await using folder = await TemporaryFolder.create('overwritten')
    const location = await folder.serverFolder('space')
    await using server = await startPostgres({
      version,
      initdbArgs: ['--wal-segsize=1'],
      settings: { autovacuum: 'off', wal_keep_size: '1GB', max_wal_size: '1GB' },
    })
    await server.query('CREATE EXTENSION pg_walinspect; CHECKPOINT')
    const begin = await insertAt(server)
    // As PostgreSQL's own test of it (026_overwrite_contrecord.pl): a large record begins at the end of a segment.
    let here = await insertAt(server)
    while (MiB - Number(here.at % BigInt(MiB)) > 6000) {
      await server.query("SELECT pg_logical_emit_message(true, 'filler', repeat('x', 2500))")
      here = await insertAt(server)
    }
    await server.query("SELECT pg_logical_emit_message(true, 'cut off', repeat('xyzxz', 123456))")
    const end = await insertAt(server)
    expect(end.file).not.toBe(here.file)
    await server.killHard()
    const wal = join(server.dataDirectory, 'pg_wal')
    for (const name of await readdir(wal))
      if (/^[0-9A-F]{24}$/.test(name) && name > here.file) await rm(join(wal, name))
    await server.start()
    await server.query(`CREATE TABLESPACE late LOCATION '${location}'`)
    await server.query('CREATE TABLE there (n int) TABLESPACE late')
    await server.query('SELECT pg_switch_wal()')
    const last = await insertAt(server)

    const first = parseWalFileName(begin.file, MiB).segment
    const scanner = new WalRecordScanner({
      walSegmentBytes: MiB,
      fromSegment: first,
      timeline: 1,
      resourceManagers: Array.from({ length: 22 }, (_, manager) => manager),
    })
    const tablespaces = new WalRecordScanner({ walSegmentBytes: MiB, fromSegment: first, timeline: 1 })
    const found: string[] = []
    const made = []
    const until = parseWalFileName(last.file, MiB).segment
    for (const name of (await readdir(wal)).filter((each) => /^[0-9A-F]{24}$/.test(each)).toSorted()) {
      const { segment } = parseWalFileName(name, MiB)
      if (segment < first || segment >= until) continue
      const bytes = await readFile(join(wal, name))
      for (const { lsn, data } of scanner.push(bytes)) found.push(`${formatLsn(lsn)} ${data.length}`)
      made.push(...scanTablespaceChanges(tablespaces.push(bytes)))
    }
    expect({ all: scanner.ended, tablespaces: tablespaces.ended }).toEqual({ all: undefined, tablespaces: undefined })
    expect(made).toMatchObject([{ kind: 'create', location }])
    const truth = await server.query<{ line: string; type: string }>(
      `SELECT start_lsn || ' ' || main_data_length AS line, record_type AS type
       FROM pg_get_wal_records_info('${formatLsn(begin.at as never)}', '${formatLsn(segmentStart(until, MiB))}')`,
    )
    expect(truth.filter(({ type }) => type === 'OVERWRITE_CONTRECORD')).toHaveLength(1)
    const from = found.findIndex((line) => line === truth[0]?.line)
    expect(found.slice(from)).toEqual(truth.map(({ line }) => line))
  })
})
