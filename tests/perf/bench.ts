/**
 * `npm run bench`: a backup and a restore beside `pg_basebackup -Z client-zstd:1` and `tar`, in turn, in one run.
 *
 * Absolute figures depend on the machine and what else it does; the ratios of neighbouring runs are what counts. Both sides make their
 * results durable; ours also encrypts, authenticates and writes the WAL of the backup's duration as objects.
 * TIDEMARK_BENCH_SCALE (30: about 1 GB), TIDEMARK_BENCH_RUNS (3). Writes .reports/bench.json.
 */
import { execFile } from 'node:child_process'
import { chown, mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { formatBytes } from '@tidemark/kernel'
import { TemporaryFolder, startPostgres, startS3 } from '@tidemark/testkit'
import { fillSampleCluster } from '../support/sample-cluster.ts'

const run = promisify(execFile)
const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))
const scale = Number(process.env['TIDEMARK_BENCH_SCALE'] ?? 30)
const runs = Number(process.env['TIDEMARK_BENCH_RUNS'] ?? 3)
/** Runs a command and tells what the kernel says of it; ru_maxrss is that of the largest process. */
const METER = `
import json, resource, subprocess, sys, time
started = time.monotonic()
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
wall = time.monotonic() - started
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "rss": usage.ru_maxrss * 1024}))
sys.exit(code)
`

interface Figures {
  readonly wall: number
  readonly cpu: number
  readonly rss: number
}

async function measure(command: string, args: readonly string[], env: NodeJS.ProcessEnv): Promise<Figures> {
  const { stdout } = await run('python3', ['-c', METER, command, ...args], { env, maxBuffer: 1 << 24 })
  return JSON.parse(stdout) as Figures
}

async function bytesBelow(folder: string): Promise<number> {
  const names = await readdir(folder, { recursive: true, withFileTypes: true })
  const sizes = await Promise.all(
    names.filter((entry) => entry.isFile()).map(async (entry) => (await stat(join(entry.parentPath, entry.name))).size),
  )
  return sizes.reduce((sum, size) => sum + size, 0)
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN
}

function medians(all: readonly Figures[]): Figures {
  return {
    wall: median(all.map(({ wall }) => wall)),
    cpu: median(all.map(({ cpu }) => cpu)),
    rss: Math.max(...all.map(({ rss }) => rss)),
  }
}

await using folder = await TemporaryFolder.create('bench')
await using server = await startPostgres({ name: 'bench', settings: { max_wal_size: '4GB', shared_buffers: '256MB' } })
process.stdout.write(`filling a cluster (scale ${scale}) …\n`)
await fillSampleCluster(server, scale)
await server.query('VACUUM ANALYZE')
await server.query('CHECKPOINT')
const [size] = await server.query<{ bytes: string }>('SELECT sum(pg_database_size(oid)) AS bytes FROM pg_database')
await using s3 = await startS3()
const bucket = await s3.createBucket()

const repository = folder.join('repository')
await mkdir(repository)
const { stdout: key } = await run(process.execPath, [join(root, 'apps/cli/bin/tidemark.js'), 'key', 'generate'])
const config = folder.join('tidemark.yaml')
await writeFile(
  config,
  JSON.stringify({
    clusters: {
      bench: {
        nodes: [{ host: server.host, port: server.port }],
        user: server.user,
        password: { env: 'BENCH_PG_PASSWORD' },
      },
    },
    repositories: {
      local: { url: `file://${repository}`, shared: true },
      s3: {
        url: `s3://${bucket}/bench`,
        endpoint: s3.endpoint,
        accessKeyId: { env: 'BENCH_S3_KEY' },
        secretAccessKey: { env: 'BENCH_S3_SECRET' },
      },
    },
  }),
)
const env = {
  ...process.env,
  TIDEMARK_CONFIG: config,
  BACKUP_ENCRYPTION_KEY: key.trim(),
  BENCH_PG_PASSWORD: server.password,
  BENCH_S3_KEY: s3.accessKeyId,
  BENCH_S3_SECRET: s3.secretAccessKey,
  PGPASSWORD: server.password,
}
const tidemark = [join(root, 'apps/cli/bin/tidemark.js'), '--json']
await run(process.execPath, [...tidemark, 'repo', 'init'], { env })

const backup: Record<'ours' | 'oursS3' | 'peer', Figures[]> = { ours: [], oursS3: [], peer: [] }
const restore: Record<'ours' | 'oursS3' | 'peer', Figures[]> = { ours: [], oursS3: [], peer: [] }
const verify: Figures[] = []
const stored = { ours: 0, peer: 0 }
for (let i = 0; i < runs; i += 1) {
  process.stdout.write(`run ${i + 1} of ${runs}\n`)
  const before = await bytesBelow(repository)
  backup.ours.push(
    await measure(process.execPath, [...tidemark, 'backup', 'base', 'bench', '--local', '--repository', 'local'], env),
  )
  stored.ours = (await bytesBelow(repository)) - before
  const peer = await mkdtemp(folder.join('peer-'))
  backup.peer.push(
    await measure(
      join(server.binDirectory, 'pg_basebackup'),
      [
        '-h',
        server.host,
        '-p',
        String(server.port),
        '-U',
        server.user,
        '-D',
        peer,
        '-F',
        't',
        '-X',
        'stream',
        '-c',
        'fast',
        '-Z',
        'client-zstd:1',
      ],
      env,
    ),
  )
  stored.peer = await bytesBelow(peer)
  backup.oursS3.push(
    await measure(process.execPath, [...tidemark, 'backup', 'base', 'bench', '--local', '--repository', 's3'], env),
  )

  for (const [side, repositoryName] of [
    ['ours', 'local'],
    ['oursS3', 's3'],
  ] as const) {
    const target = await emptyTarget()
    restore[side].push(
      await measure(
        process.execPath,
        [
          ...tidemark,
          'restore',
          'run',
          'latest',
          '--cluster',
          'bench',
          '--target',
          target,
          '--local',
          '--repository',
          repositoryName,
        ],
        env,
      ),
    )
    await rm(target, { recursive: true })
  }
  verify.push(
    await measure(
      process.execPath,
      [
        ...tidemark,
        'verify',
        'latest',
        '--cluster',
        'bench',
        '--level',
        'contents',
        '--local',
        '--repository',
        'local',
      ],
      env,
    ),
  )
  const target = await emptyTarget()
  const extract = `set -e; zstd -dc '${peer}/base.tar.zst' | tar -xf - -C '${target}'; tar -xf '${peer}/pg_wal.tar' -C '${target}/pg_wal' 2>/dev/null || zstd -dc '${peer}/pg_wal.tar.zst' | tar -xf - -C '${target}/pg_wal'; sync -f '${target}'`
  restore.peer.push(await measure('sh', ['-c', extract], env))
  await rm(target, { recursive: true })
  await rm(peer, { recursive: true })
}

async function emptyTarget(): Promise<string> {
  const target = await mkdtemp(folder.join('target-'))
  if (server.osUser !== undefined) await chown(target, server.osUser.uid, server.osUser.gid)
  return target
}

const rows = [
  ['backup, tidemark to a directory', medians(backup.ours), stored.ours, backup.ours, backup.peer],
  ['backup, tidemark to S3', medians(backup.oursS3), stored.ours, backup.oursS3, backup.peer],
  ['backup, pg_basebackup -Z client-zstd:1', medians(backup.peer), stored.peer, undefined, backup.peer],
  ['restore, tidemark from a directory', medians(restore.ours), undefined, restore.ours, restore.peer],
  ['restore, tidemark from S3', medians(restore.oursS3), undefined, restore.oursS3, restore.peer],
  ['verify --level contents', medians(verify), undefined, verify, restore.peer],
  ['restore, zstd and tar', medians(restore.peer), undefined, undefined, restore.peer],
] as const
process.stdout.write(`\n${formatBytes(Number(size?.bytes))} of data, median of ${runs} runs\n\n`)
process.stdout.write(
  '| | wall s | CPU s | peak RSS | stored | wall ratio | CPU ratio |\n|---|---|---|---|---|---|---|\n',
)
for (const [name, figures, bytes, ours, peer] of rows) {
  const ratio = (of: 'wall' | 'cpu'): string =>
    ours === undefined ? '1' : median(ours.map((own, i) => own[of] / (peer[i]?.[of] ?? Number.NaN))).toFixed(2)
  process.stdout.write(
    `| ${name} | ${figures.wall.toFixed(2)} | ${figures.cpu.toFixed(2)} | ${formatBytes(figures.rss)} | ${bytes === undefined ? '' : formatBytes(bytes)} | ${ratio('wall')} | ${ratio('cpu')} |\n`,
  )
}
await mkdir(join(root, '.reports'), { recursive: true })
await writeFile(
  join(root, '.reports', 'bench.json'),
  `${JSON.stringify({ scale, runs, bytes: Number(size?.bytes), stored, backup, restore, verify }, undefined, 2)}\n`,
)
