/**
 * `npm run demo`: the main job on a real PostgreSQL, from nothing to restored, with everything in its own process.
 *
 * A cluster under pgbench load is backed up through API, queue and worker; verified; lost with its disk; restored and started; and
 * its contents are compared table by table. The exit code tells. `npm run demo -- --stay` leaves the API up afterwards.
 * TIDEMARK_DEMO_SCALE sets the size: 10 is about 0.4 GB.
 */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { type BackupResult, type RestoreResult, type VerifyResult } from '@tidemark/contracts'
import { formatBytes, formatDuration } from '@tidemark/kernel'
import { TemporaryFolder, type TestPostgres, adoptPostgres, startPostgres, startRedis, until } from '@tidemark/testkit'
import { fillSampleCluster, fingerprint } from '../tests/support/sample-cluster.ts'
import { follow, post } from './demo/api.ts'
import { type App, startApp } from './demo/fleet.ts'
import { heading, printTable, progressPrinter, say } from './demo/print.ts'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const scale = Number(process.env['TIDEMARK_DEMO_SCALE'] ?? 10)
const stay = process.argv.includes('--stay')
/** pgbench writes into these; everything else must come back exactly as it was. */
const BUSY = new Set([
  'public.pgbench_accounts',
  'public.pgbench_branches',
  'public.pgbench_tellers',
  'public.pgbench_history',
])

const startedMs = performance.now()
await using services = new AsyncDisposableStack()

heading('A PostgreSQL cluster with data and a write load')
const folder = services.use(await TemporaryFolder.create('demo'))
const source = services.use(await startPostgres({ name: 'demo-source', settings: { max_wal_size: '2GB' } }))
await fillSampleCluster(source, scale)
const [size] = await source.query<{ version: string; bytes: string }>(
  `SELECT current_setting('server_version') AS version, sum(pg_database_size(oid)) AS bytes FROM pg_database`,
)
say(`PostgreSQL ${size?.version}, ${formatBytes(Number(size?.bytes))} of data, on port ${source.port}`)

heading('Redis, API and workers, each its own process')
const redis = services.use(await startRedis())
const configFile = folder.join('tidemark.yaml')
const repository = folder.join('repository')
await mkdir(repository)
const { stdout: key } = await tidemark(['key', 'generate'], process.env)
const env = {
  ...process.env,
  TIDEMARK_CONFIG: configFile,
  BACKUP_ENCRYPTION_KEY: key.trim(),
  DEMO_PG_PASSWORD: source.password,
}
await writeFile(
  configFile,
  JSON.stringify(
    {
      clusters: {
        demo: {
          nodes: [{ host: source.host, port: source.port }],
          user: source.user,
          password: { env: 'DEMO_PG_PASSWORD' },
        },
      },
      repositories: { local: { url: `file://${repository}`, shared: true } },
      redis: { url: redis.url },
      api: { port: 0, healthPort: 0 },
      workers: {
        backup: { healthPort: 0 },
        verify: { healthPort: 0 },
        restore: { healthPort: 0 },
        maintenance: { healthPort: 0 },
      },
    },
    undefined,
    2,
  ),
)
await tidemark(['repo', 'init'], env)
const apps: App[] = []
for (const name of ['api', 'worker-backup', 'worker-verify', 'worker-restore', 'worker-maintenance']) {
  apps.push(services.use(await startApp(name, folder.path, env)))
}
const api = String(apps[0]?.ready['url'])
for (const { name, pid } of apps) say(`${name.padEnd(18)} pid ${pid}`)
say(`API at ${api} (loopback only), queues at ${api}/queues`)

heading('Base backup over HTTP, through the queue, while pgbench writes')
const quiet = staticPart(await fingerprint(source))
const load = startLoad(source)
const historyBefore = await historyRows(source)
const backup = (
  await follow(api, await post(api, '/v1/clusters/demo/backups', { label: 'npm run demo' }), progressPrinter())
).result as BackupResult
const historyAfter = await historyRows(source)
say(
  `backup ${backup.backupId}: ${backup.verdict}, ${formatBytes(backup.bytes)} in ${backup.files} files, stored in ${formatBytes(backup.storedBytes)}`,
)

heading('Verification')
const verified = (await follow(api, `/v1/operations/${backup.verifyOperationId}`, progressPrinter()))
  .result as VerifyResult
const contentsLocation = await post(api, `/v1/clusters/demo/backups/${backup.backupId}/verifications`, {
  level: 'contents',
})
const contents = (await follow(api, contentsLocation, progressPrinter())).result as VerifyResult
for (const { name, packs, files } of contents.repositories)
  say(`${name}: all ${packs} packs and ${files} files are as PostgreSQL sent them`)

heading('The disaster')
await load.stop()
await source.killHard()
for (const name of await readdir(source.dataDirectory)) await rm(join(source.dataDirectory, name), { recursive: true })
say(`the server was killed and ${source.dataDirectory} emptied`)
const lostMs = performance.now()

heading('Restore over HTTP, through the queue')
const restoreLocation = await post(api, '/v1/restores', {
  cluster: 'demo',
  backupId: backup.backupId,
  targetDirectory: source.dataDirectory,
})
const restore = (await follow(api, restoreLocation, progressPrinter())).result as RestoreResult
const restored = services.use(await adoptPostgres({ dataDirectory: restore.targetDirectory }))
const timeline = await until(() => newTimeline(restored), {
  timeoutMs: 60_000,
  everyMs: 50,
  what: 'the end of recovery',
})
const recoveredMs = performance.now() - lostMs
say(`started on timeline ${timeline}; ${formatDuration(recoveredMs)} from disaster to a server that answers`)

heading('Contents, table by table')
const findings = await compare(restored, quiet, historyBefore, historyAfter)
for (const { table, verdict, good } of findings) say(`${good ? 'ok  ' : 'BAD '} ${table.padEnd(28)} ${verdict}`)
await restored.run('pg_amcheck', ['--all', '--heapallindexed', '--install-missing'])
say('ok   pg_amcheck                   every heap and index is sound')

heading('Summary')
const [, worker] = apps
const restoreWorker = apps[3]
printTable([
  [
    'backup',
    `${formatDuration(backup.durationMs)} for ${formatBytes(backup.bytes)}: ${formatBytes((backup.bytes / backup.durationMs) * 1000)}/s`,
  ],
  [
    'stored',
    `${formatBytes(backup.storedBytes)}, ${((backup.storedBytes / backup.bytes) * 100).toFixed(0)} % of the data, encrypted`,
  ],
  ['verification', `${verified.repositories.length} repository, packs and contents`],
  [
    'restore',
    `${formatDuration(restore.durationMs)} for ${restore.files} files: ${formatBytes((restore.bytes / restore.durationMs) * 1000)}/s`,
  ],
  ['disaster to running', formatDuration(recoveredMs)],
  [
    'backup worker',
    `peak memory ${formatBytes(worker?.peakMemoryBytes() ?? 0)}, ${worker?.cpuSeconds().toFixed(1)} CPU seconds`,
  ],
  [
    'restore worker',
    `peak memory ${formatBytes(restoreWorker?.peakMemoryBytes() ?? 0)}, ${restoreWorker?.cpuSeconds().toFixed(1)} CPU seconds`,
  ],
  ['whole demo', formatDuration(performance.now() - startedMs)],
])
const good = findings.every((finding) => finding.good) && contents.repositories.every(({ ok }) => ok)
process.stdout.write(good ? '\nThe cluster came back whole.\n' : '\nTHE CLUSTER DID NOT COME BACK AS IT WAS.\n')
process.exitCode = good ? 0 : 1
if (stay) {
  process.stdout.write(`\nThe API stays up at ${api} (TIDEMARK_CONFIG=${configFile}). Ctrl-C ends it.\n`)
  await new Promise((resolve) => {
    process.once('SIGINT', resolve)
    process.once('SIGTERM', resolve)
  })
}

function tidemark(args: readonly string[], environment: NodeJS.ProcessEnv): Promise<{ stdout: string }> {
  return promisify(execFile)(process.execPath, [join(root, 'apps/cli/bin/tidemark.js'), ...args], { env: environment })
}

/** pgbench's own script, two clients, until told to stop. */
function startLoad(server: TestPostgres): { stop: () => Promise<void> } {
  const child = spawn(
    join(server.binDirectory, 'pgbench'),
    ['--client', '2', '--time', '86400', '--rate', '400', '--no-vacuum'],
    {
      env: {
        ...process.env,
        PGHOST: server.host,
        PGPORT: String(server.port),
        PGUSER: server.user,
        PGPASSWORD: server.password,
        PGDATABASE: server.database,
      },
      stdio: 'ignore',
    },
  )
  const gone = once(child, 'exit')
  services.defer(() => void child.kill('SIGKILL'))
  return {
    stop: async () => {
      child.kill('SIGTERM')
      await gone
    },
  }
}

/** The timeline that a server writes on, once it has left recovery. */
async function newTimeline(server: TestPostgres): Promise<number | undefined> {
  const [row] = await server.query<{ recovering: boolean }>('SELECT pg_is_in_recovery() AS recovering')
  if (row?.recovering !== false) return undefined
  const [wal] = await server.query<{ file: string }>('SELECT pg_walfile_name(pg_current_wal_insert_lsn()) AS file')
  return Number.parseInt(wal?.file.slice(0, 8) ?? '', 16)
}

async function historyRows(server: TestPostgres): Promise<number> {
  const [row] = await server.query<{ rows: string }>('SELECT count(*) AS rows FROM pgbench_history')
  return Number(row?.rows)
}

function staticPart(all: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(all).filter(([table]) => !BUSY.has(table)))
}

/**
 * What nobody wrote to is equal to the last row. What pgbench wrote to is one consistent moment between the backup's start and its end:
 * every transaction moves the same amount through four tables, so their sums agree only at a transaction boundary.
 */
async function compare(
  server: TestPostgres,
  expected: Record<string, string>,
  atLeast: number,
  atMost: number,
): Promise<{ table: string; verdict: string; good: boolean }[]> {
  const found = staticPart(await fingerprint(server))
  const result = Object.keys({ ...expected, ...found }).map((table) => {
    const good = found[table] === expected[table]
    const rows = /^\d+(?=:)/.exec(found[table] ?? '')?.[0]
    return {
      table,
      good,
      verdict: good
        ? `equal${rows === undefined ? '' : `, ${rows} rows`}`
        : `differs: ${expected[table]} became ${found[table]}`,
    }
  })
  const [sums] = await server.query<Record<'accounts' | 'branches' | 'tellers' | 'history', string>>(`
    SELECT (SELECT sum(abalance) FROM pgbench_accounts) AS accounts, (SELECT sum(bbalance) FROM pgbench_branches) AS branches,
           (SELECT sum(tbalance) FROM pgbench_tellers) AS tellers, (SELECT coalesce(sum(delta), 0) FROM pgbench_history) AS history`)
  const balanced = sums !== undefined && new Set([sums.accounts, sums.branches, sums.tellers, sums.history]).size === 1
  const rows = await historyRows(server)
  const within = rows >= atLeast && rows <= atMost
  result.push({
    table: 'pgbench tables',
    good: balanced,
    verdict: balanced ? `all four sum up to ${sums.history}` : `sums differ: ${JSON.stringify(sums)}`,
  })
  result.push({
    table: 'pgbench_history',
    good: within,
    verdict: `${rows} transactions; ${atLeast} before the backup, ${atMost} after it`,
  })
  return result
}
