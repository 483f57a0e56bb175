import {
  readBackupManifest,
  parseBackupLabel,
  parseControlFile,
  parseTablespaceMap,
  runBaseBackup,
} from '@tidemark/postgres'
import { formatLsn } from '@tidemark/kernel'
import { startPostgres, TemporaryFolder, until, type TestPostgres } from '@tidemark/testkit'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { DataDirectorySink, sinkWith } from './data-directory-sink.ts'
import { fill, noDeadline, targetOf } from './server-target.ts'

let server: TestPostgres
let folder: TemporaryFolder
beforeAll(async () => {
  server = await startPostgres({ name: 'base', settings: { fsync: 'off', max_wal_size: '4GB' } })
  folder = await TemporaryFolder.create('base-backup')
  await fill(server, 'filling', 150)
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
  await folder[Symbol.asyncDispose]()
})

test('the streamed files are the backup the manifest describes, tablespaces and strange names included', async () => {
  const location = await folder.serverFolder('over there')
  await server.query(`CREATE TABLESPACE aside LOCATION '${location}'`)
  await server.query('CREATE TABLE elsewhere TABLESPACE aside AS SELECT generate_series(1, 1000) AS id')
  const strange = Buffer.concat([Buffer.from(`${server.dataDirectory}/`), Buffer.from('caf\xe9', 'latin1')])
  await writeFile(strange, 'not UTF-8')
  await writeFile(join(server.dataDirectory, 'a "quoted" näme }],'), 'strange')

  const copy = folder.join('copy')
  const sink = new DataDirectorySink(copy)
  const end = await runBaseBackup(targetOf(server), { label: "it's a 'label'", checkpoint: 'fast' }, sink, noDeadline)
  await rm(strange)

  expect(end).toMatchObject({ kind: 'complete', timeline: 1, manifestBytes: sink.manifest.length, notices: [] })
  expect(end.stopLsn).toBeGreaterThan(end.startLsn)
  expect(sink.started?.tablespaces).toMatchObject([{ location }])
  expect(sink.started?.totalBytes).toBeGreaterThan(100_000_000)
  expect(sink.lastProgress).toBeGreaterThanOrEqual(end.fileBytes)

  // The file whose name JSON cannot hold is checked here: as text its path is lossy.
  const odd = sink.files.find(({ pathBytes }) => pathBytes !== undefined)
  expect(odd?.pathBytes).toEqual(Buffer.from('caf\xe9', 'latin1'))
  const inManifest: string[] = []
  const summary = await readBackupManifest([sink.manifest], ({ path, pathBytes, size, checksum }) => {
    inManifest.push(path)
    expect(checksum).toMatch(/^[0-9a-f]{64}$/)
    expect(sink.files.find((file) => file.path === path)).toMatchObject({ size, ...(pathBytes && { pathBytes }) })
  })
  expect(summary.files).toBe(sink.files.filter(({ type }) => type === 'file').length)
  expect(summary.walRanges).toEqual([{ timeline: 1, startLsn: end.startLsn, endLsn: end.stopLsn }])
  const oid = sink.started?.tablespaces[0]?.oid
  expect(inManifest.some((path) => path.startsWith(`pg_tblspc/${oid}/PG_`))).toBe(true)

  const label = parseBackupLabel(await readFile(join(copy, 'backup_label'), 'utf8'))
  expect(label).toMatchObject({
    label: "it's a 'label'",
    startLsn: end.startLsn,
    startTimeline: 1,
    backupFrom: 'primary',
  })
  expect(parseTablespaceMap(await readFile(join(copy, 'tablespace_map'), 'utf8'))).toEqual([{ oid, location }])
  const control = parseControlFile(await readFile(join(copy, 'global/pg_control')))
  expect(control).toMatchObject({ timeline: 1, state: 'in production' })
  await server.query('DROP TABLE elsewhere')
  await server.query('DROP TABLESPACE aside')
})

test('pg_verifybackup accepts what was written', async () => {
  const copy = folder.join('verified')
  const sink = new DataDirectorySink(copy)
  await runBaseBackup(targetOf(server), { label: 'verify', checkpoint: 'fast' }, sink, noDeadline)
  await sink.writeManifest()
  const { stdout } = await server.run('pg_verifybackup', ['-n', copy])
  expect(stdout).toContain('backup successfully verified')
})

test('pg_control is read as pg_controldata reads it', async () => {
  await server.stop('fast')
  const control = parseControlFile(await readFile(join(server.dataDirectory, 'global/pg_control')))
  const { stdout } = await server.run('pg_controldata', [server.dataDirectory], { env: { LC_ALL: 'C' } })
  await server.start()
  const line = (name: string): string | undefined => new RegExp(`^${name}: +(.*)$`, 'm').exec(stdout)?.[1]
  expect(control.systemId).toBe(line('Database system identifier'))
  expect(String(control.controlVersion)).toBe(line('pg_control version number'))
  expect(String(control.catalogVersion)).toBe(line('Catalog version number'))
  expect(control.state).toBe(line('Database cluster state'))
  expect(formatLsn(control.checkpointLsn)).toBe(line('Latest checkpoint location'))
  expect(formatLsn(control.redoLsn)).toBe(line("Latest checkpoint's REDO location"))
  expect(String(control.timeline)).toBe(line("Latest checkpoint's TimeLineID"))
  expect(formatLsn(control.minRecoveryLsn)).toBe(line('Minimum recovery ending location'))
  expect(String(control.walSegmentBytes)).toBe(line('Bytes per WAL segment'))
  expect(String(control.blockBytes)).toBe(line('Database block size'))
  expect(String(control.dataChecksumVersion)).toBe(line('Data page checksum version'))
  expect(String(control.restoreMinima.maxConnections)).toBe(line('max_connections setting'))
})

test('while a sink is busy the server is made to wait, and nothing is queued', async () => {
  const gate = Promise.withResolvers<void>()
  let reached = false
  const sink = sinkWith({
    onFileChunk: (chunk) => {
      if (reached || chunk.length < 8192) return undefined
      reached = true
      return gate.promise
    },
  })
  const running = runBaseBackup(targetOf(server), { label: 'slow', checkpoint: 'fast' }, sink, noDeadline)
  await until(async () => {
    const [row] = await server.query("SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'walsender'")
    return reached && row?.['wait_event'] === 'ClientWrite'
  })
  const before = process.memoryUsage().arrayBuffers
  // Many looks later the server still waits and no byte more has come in.
  for (let look = 0; look < 20; look += 1) {
    const [row] = await server.query("SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'walsender'")
    expect(row?.['wait_event']).toBe('ClientWrite')
  }
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(4 * 1024 * 1024)
  gate.resolve()
  expect((await running).kind).toBe('complete')
})

test('a sink that awaits every chunk holds memory down to a few reads', async () => {
  const before = process.memoryUsage().arrayBuffers
  let highest = 0
  const sink = sinkWith({
    onFileChunk: async () => {
      highest = Math.max(highest, process.memoryUsage().arrayBuffers)
      await setImmediate()
    },
  })
  const end = await runBaseBackup(targetOf(server), { label: 'awaited', checkpoint: 'fast' }, sink, noDeadline)
  expect(end.fileBytes).toBeGreaterThan(150_000_000)
  // Buffers already read wait for the collector; a queue without bound would hold all of the backup.
  expect(highest - before).toBeLessThan(64 * 1024 * 1024)
})
