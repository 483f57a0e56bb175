/**
 * The main promise: a cluster under load is backed up through the queue, lost, restored, and equal.
 *
 * TIDEMARK_E2E_SCALE sets the size: 4 makes about 150 MB, 30 about 1 GB.
 */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readFile, rm, stat } from 'node:fs/promises'
import { isTerminal, operationSchema } from '@tidemark/contracts'
import { type TestPostgres, adoptPostgres, runTool, sharedS3, startPostgres, startRedis } from '@tidemark/testkit'
import { expect, test } from 'vitest'
import { Fleet, awsEnvironment, bucketRepository, untilPromoted } from '../support/fleet.ts'
import { fillSampleCluster, fingerprint } from '../support/sample-cluster.ts'

const scale = Number(process.env['TIDEMARK_E2E_SCALE'] ?? '4')
/** What the throttled copy takes: long enough for the load to begin, run and end inside of it. */
const COPY_SECONDS = 6

test('a cluster under load, backed up through the queue and then destroyed, comes back equal', async () => {
  await using source = await startPostgres({ name: 'source', settings: { max_wal_size: '512MB' } })
  await using redis = await startRedis()
  await using s3 = await sharedS3()
  await fillSampleCluster(source, scale)
  await using fleet = await Fleet.create({
    clusters: { main: source },
    repositories: { local: { folder: 'local' }, offsite: await bucketRepository(s3) },
    redis,
    env: awsEnvironment(s3),
    packBytes: '32MiB',
  })
  await fleet.initRepositories()
  const [, worker] = await Promise.all([
    fleet.start('api'),
    fleet.start('worker-backup'),
    fleet.start('worker-verify'),
    fleet.start('worker-restore'),
  ])

  await using load = new Load(source)
  const backupOperation = await fleet.post('/v1/clusters/main/backups', { maxRateKiB: await rateFor(source) })
  const snapshots = followEvents(`http://127.0.0.1:${fleet.apiPort}/v1/operations/${backupOperation}/events`)
  await fleet.midCopy(backupOperation, 0.4)
  await load.end()
  const afterLoad = await fleet.operation(backupOperation)
  const backup = await fleet.finished(backupOperation, 200_000)
  if (backup.kind !== 'backup' || backup.result === undefined) throw new Error(JSON.stringify(backup))

  // The load began before the copy and ended inside of it: the backup's end is the source as it is now.
  expect(afterLoad).toMatchObject({ state: 'running', progress: { phase: 'copy' } })
  expect(load.transactions).toBeGreaterThan(0)
  expect(backup.result).toMatchObject({
    verdict: 'intact',
    timeline: 1,
    repositories: [
      { name: 'local', outcome: 'stored' },
      { name: 'offsite', outcome: 'stored' },
    ],
  })
  const seen = await snapshots
  expect(seen.map(({ progress }) => progress?.phase)).toContain('copy')
  expect(seen.at(-1)).toEqual(backup)
  const verification = await fleet.finished(backup.result.verifyOperationId ?? '')
  expect(verification).toMatchObject({
    state: 'succeeded',
    result: {
      repositories: [
        { name: 'local', ok: true },
        { name: 'offsite', ok: true },
      ],
    },
  })

  const before = await contentsOf(source, fleet.folder.join('before.sql'))
  await source.stop('immediate')
  await rm(source.dataDirectory, { recursive: true })
  const targetDirectory = await fleet.newTarget('restored')
  const restore = await fleet.finished(
    await fleet.post('/v1/restores', { cluster: 'main', backupId: backup.result.backupId, targetDirectory }),
    200_000,
  )

  expect(restore).toMatchObject({ state: 'succeeded', result: { targetDirectory, files: backup.result.files } })
  await using restored = await adoptPostgres({ dataDirectory: targetDirectory, user: source.user })
  await untilPromoted(restored)
  expect(await contentsOf(restored, fleet.folder.join('after.sql'))).toEqual(before)
  await restored.run('pg_amcheck', ['--database=postgres', '--heapallindexed', '--parent-check'])
  const [state] = await restored.query(`
    SELECT timeline_id AS timeline, pg_is_in_recovery() AS recovering, current_setting('archive_mode') AS archive_mode,
           current_setting('listen_addresses') AS listen, current_setting('unix_socket_directories') AS sockets,
           current_setting('max_logical_replication_workers') AS subscribers FROM pg_control_checkpoint()`)
  expect(state).toEqual({
    timeline: 2,
    recovering: false,
    archive_mode: 'off',
    listen: '',
    sockets: targetDirectory,
    subscribers: '0',
  })
  expect(await listeningPorts(restored.pid ?? 0)).toEqual([])
  expect(await stat(`${targetDirectory}/tidemark_wal`).catch(() => 'gone')).toBe('gone')
  expect(await fleet.leftovers('local')).toEqual([])
  const status = await readFile(`/proc/${worker.pid}/status`, 'utf8')
  const peakMiB = Math.round(Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1]) / 1024)
  process.stderr.write(`backup of ${backup.result.bytes} bytes: the worker's memory peaked at ${peakMiB} MiB\n`)
}, 600_000)

/** pgbench, from the moment it is made. */
class Load implements AsyncDisposable {
  transactions = 0
  readonly #stop = new AbortController()
  readonly #runs: Promise<void>

  constructor(server: TestPostgres) {
    this.#runs = this.#run(server)
  }

  async #run(server: TestPostgres): Promise<void> {
    while (!this.#stop.signal.aborted) {
      const { stdout } = await server.run('pgbench', ['--no-vacuum', '--client=2', '--transactions=100'])
      this.transactions += Number(/actually processed: (\d+)/.exec(stdout)?.[1] ?? 0)
    }
  }

  async end(): Promise<void> {
    this.#stop.abort()
    await this.#runs
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end()
  }
}

async function rateFor(server: TestPostgres): Promise<number> {
  const [row] = await server.query<{ bytes: string }>('SELECT sum(pg_database_size(oid)) AS bytes FROM pg_database')
  return Math.max(32, Math.round(Number(row?.bytes) / 1024 / COPY_SECONDS))
}

/** Every snapshot that the event stream sends, to its end. */
async function followEvents(url: string): Promise<ReturnType<typeof operationSchema.parse>[]> {
  const text = await (await fetch(url, { headers: { accept: 'text/event-stream' } })).text()
  const snapshots = [...text.matchAll(/^data: (.*)$/gm)].map(([, data]) =>
    operationSchema.parse(JSON.parse(data ?? '')),
  )
  const last = snapshots.at(-1)
  if (last === undefined || !isTerminal(last.state)) throw new Error('the event stream ended before the operation')
  return snapshots
}

async function contentsOf(server: TestPostgres, dumpFile: string): Promise<{ tables: object; dump: string }> {
  // The key in place of a random one makes two dumps comparable. An unlogged table comes back empty, as after a crash.
  await server.run('pg_dump', ['--restrict-key=same', '--no-unlogged-table-data', '--file', dumpFile])
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(dumpFile)) hash.update(chunk as Buffer)
  await rm(dumpFile)
  return { tables: await fingerprint(server), dump: hash.digest('hex') }
}

/** TCP ports that a process listens on: sockets of its own in state 0A. */
async function listeningPorts(pid: number): Promise<string[]> {
  const { stdout } = await runTool('/bin/bash', ['-c', `ls -l /proc/${pid}/fd`])
  const own = new Set([...stdout.matchAll(/socket:\[(\d+)\]/g)].map(([, inode]) => inode))
  const tables = await Promise.all(['tcp', 'tcp6'].map((name) => readFile(`/proc/net/${name}`, 'utf8').catch(() => '')))
  return tables
    .flatMap((table) => table.split('\n').slice(1))
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => fields[3] === '0A' && own.has(fields[9]))
    .map((fields) => fields[1] ?? '')
}
