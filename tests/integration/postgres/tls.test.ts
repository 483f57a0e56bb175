import { connect, openWalStream, preflight, runBaseBackup } from '@tidemark/postgres'
import { startPostgres, runTool, TemporaryFolder, type TestPostgres } from '@tidemark/testkit'
import { chown, readFile } from 'node:fs/promises'
import { setImmediate } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { sinkWith } from './data-directory-sink.ts'
import { noDeadline, targetOf } from './server-target.ts'

let folder: TemporaryFolder
let server: TestPostgres
let ca: string
beforeAll(async () => {
  folder = await TemporaryFolder.create('tls')
  const [key, certificate] = [folder.join('server.key'), folder.join('server.crt')]
  const subject = ['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1']
  await runTool('openssl', [
    'req',
    '-x509',
    '-newkey',
    'rsa:2048',
    '-nodes',
    '-days',
    '2',
    '-keyout',
    key,
    '-out',
    certificate,
    ...subject,
  ])
  server = await startPostgres({ name: 'tls', settings: { fsync: 'off' } })
  if (server.osUser) await chown(key, server.osUser.uid, server.osUser.gid)
  await server.query(`ALTER SYSTEM SET ssl_key_file = '${key}'`)
  await server.query(`ALTER SYSTEM SET ssl_cert_file = '${certificate}'`)
  await server.query('ALTER SYSTEM SET ssl = on')
  await server.query('SELECT pg_reload_conf()')
  ca = await readFile(certificate, 'utf8')
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
  await folder[Symbol.asyncDispose]()
})

test('a certificate nobody vouches for is refused', async () => {
  const attempt = connect(targetOf(server, { ssl: true }), noDeadline)
  await expect(attempt).rejects.toMatchObject({ code: 'PG_TLS_FAILED', retry: 'after-operator' })
})

test('preflight, base backup with backpressure and WAL run over TLS', async () => {
  const target = targetOf(server, { ssl: { ca } })
  await preflight(target, { needWal: true }, noDeadline)
  await using sql = await connect(target, noDeadline)
  expect(await sql.query('SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()')).toEqual([{ ssl: true }])

  await using wal = await openWalStream(target, noDeadline)
  let bytes = 0
  const sink = sinkWith({
    onStart: ({ startLsn, timeline }) => {
      const fromLsn = (startLsn - (startLsn % BigInt(wal.segmentBytes))) as typeof startLsn
      return wal.start({ fromLsn, timeline, onSegment() {} })
    },
    onFileChunk: async (chunk) => {
      bytes += chunk.length
      await setImmediate()
    },
  })
  const end = await runBaseBackup(target, { label: 'tls', checkpoint: 'fast' }, sink, noDeadline)
  expect(end).toMatchObject({ kind: 'complete', fileBytes: bytes })
  expect((await wal.finishAt(end.stopLsn)).confirmedLsn).toBeGreaterThanOrEqual(end.stopLsn)
})
