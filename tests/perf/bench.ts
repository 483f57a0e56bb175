/**
 * `npm run bench`: Tidemark beside pg_basebackup, pgBackRest and Barman, on one server, in one run.
 *
 * Absolute figures depend on the machine and what else it does; ours and the peer's run one right after the other, and the ratios of these
 * neighbours are what counts. All make their results durable. docs/measurements.md says what each side does and leaves out.
 * TIDEMARK_BENCH_SCALE (30: about 1 GB; 100: about 3 GB), TIDEMARK_BENCH_RUNS (3). Writes .reports/bench.json, bench.md and the profiles.
 */
import { chown, mkdir, mkdtemp, open, rm, writeFile } from 'node:fs/promises'
import { availableParallelism, cpus } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { MiB, formatBytes } from '@tidemark/kernel'
import { TemporaryFolder, startPostgres, startS3 } from '@tidemark/testkit'
import { fillSampleCluster } from '../support/sample-cluster.ts'
import { openBarman } from './contestants/barman.ts'
import type { Arena, Contestant } from './contestants/contestant.ts'
import { openPgBackRest } from './contestants/pgbackrest.ts'
import { openPgBasebackup } from './contestants/pg-basebackup.ts'
import { openTidemark } from './contestants/tidemark.ts'
import { type Figures, Meter } from './meter.ts'
import { type Pair, renderReport } from './report.ts'
import { profileStages } from './stage-profile.ts'

const scale = Number(process.env['TIDEMARK_BENCH_SCALE'] ?? 30)
const runs = Number(process.env['TIDEMARK_BENCH_RUNS'] ?? 3)
const cores = availableParallelism()
const reports = join(dirname(dirname(dirname(fileURLToPath(import.meta.url)))), '.reports')
await mkdir(reports, { recursive: true })

await using folder = await TemporaryFolder.create('bench')
await using server = await startPostgres({ name: 'bench', settings: { max_wal_size: '4GB', shared_buffers: '256MB' } })
say(`filling a cluster (scale ${scale}) …`)
await fillSampleCluster(server, scale)
await server.query('VACUUM ANALYZE')
await server.query('CHECKPOINT')
const [size] = await server.query<{ bytes: string }>('SELECT sum(pg_database_size(oid)) AS bytes FROM pg_database')
await using s3 = await startS3()
const arena: Arena = { server, s3, folder: folder.path, cores }
const meter = new Meter(() => server.pid)

const tidemark = await openTidemark(arena)
const zstd1 = tidemark({ name: 'tidemark, zstd 1', level: 1, repositories: ['local'] })
const zstd3 = tidemark({ name: 'tidemark, zstd 3', level: 3, repositories: ['local'] })
const inS3 = tidemark({ name: 'tidemark, zstd 1, S3', level: 1, repositories: ['s3'] })
const inBoth = tidemark({ name: 'tidemark, zstd 1, directory and S3', level: 1, repositories: ['local', 's3'] })
const pgBasebackup = await openPgBasebackup(arena)
await using barman = await openBarman(arena)
const matches: { readonly ours: Contestant; readonly peer: Contestant }[] = [{ ours: zstd1, peer: pgBasebackup }]
for (const { ours, level, store } of [
  { ours: zstd1, level: 1, store: 'directory' },
  { ours: zstd3, level: 3, store: 'directory' },
  { ours: inS3, level: 1, store: 's3' },
] as const) {
  const peer = await openPgBackRest(arena, { level, store })
  if (peer === undefined) say(`no pgBackRest for ${store}, zst ${level}: not installed (or no S3 over TLS)`)
  else matches.push({ ours, peer })
}
if (barman.contestant === undefined) say(`no Barman: ${barman.reason}`)
else matches.push({ ours: zstd1, peer: barman.contestant })

const pairs: Pair[] = matches.flatMap(({ ours, peer }) =>
  (['backup', 'restore'] as const).map((what) => ({
    what,
    ours: ours.name,
    peer: peer.name,
    oursRuns: [],
    peerRuns: [],
  })),
)
const stored = new Map<string, number>()
const both: Figures[] = []
for (let round = 1; round <= runs; round += 1) {
  for (const [i, { ours, peer }] of matches.entries()) {
    say(`round ${round} of ${runs}: ${ours.name} and ${peer.name}`)
    const backups = pairs[2 * i]
    const restores = pairs[2 * i + 1]
    if (backups === undefined || restores === undefined) throw new RangeError('a match without its pairs')
    // Each half is counted only when both sides have done it; a peer that fails loses its match, not the whole run.
    const backedUp = await inTurn(round, ours, peer, backup)
    if (backedUp === undefined) continue
    backups.oursRuns.push(backedUp.ours)
    backups.peerRuns.push(backedUp.peer)
    const restored = await inTurn(round, ours, peer, restore)
    if (restored === undefined) continue
    restores.oursRuns.push(restored.ours)
    restores.peerRuns.push(restored.peer)
  }
  await inBoth.reset()
  both.push(await meter.measure(inBoth.backup, inBoth.env))
}

const about = [
  `${new Date().toISOString().slice(0, 10)}, ${cores} cores (${cpus()[0]?.model.trim()}), Node ${process.version}, ${formatBytes(Number(size?.bytes))} of data, ${runs} rounds.`,
  `Directory and S3 at once: ${Math.max(...both.map(({ wall }) => wall)).toFixed(2)} s, peak RSS ${formatBytes(Math.max(...both.map(({ treeRss }) => treeRss)))}.`,
  ...new Set(matches.flatMap(({ ours, peer }) => [ours, peer]).map((side) => `- ${side.name}: ${side.about}`)),
].join('\n')
const stages = [
  ['backup', await profileStages(zstd1.backup, zstd1.env, join(reports, 'profile-backup'))],
  ['restore', await profileRestore()],
] as const
const measured = pairs.filter(({ oursRuns }) => oursRuns.length > 0)
const report = `${about}\n\n${renderReport(measured, stored)}\n${stages.map(([what, table]) => `CPU of the ${what} by stage:\n\n${table}`).join('\n')}`
process.stdout.write(`\n${report}`)
await writeFile(join(reports, 'bench.md'), report)
await writeFile(
  join(reports, 'bench.json'),
  `${JSON.stringify({ scale, runs, cores, bytes: Number(size?.bytes), stored: Object.fromEntries(stored), pairs, both }, undefined, 2)}\n`,
)

/** Whoever goes first finds colder caches: that is ours in odd rounds, the peer in even ones. Undefined where the peer failed. */
async function inTurn(
  round: number,
  ours: Contestant,
  peer: Contestant,
  run: (side: Contestant) => Promise<Figures>,
): Promise<{ ours: Figures; peer: Figures } | undefined> {
  await touchFreeMemory()
  const first = round % 2 === 1 ? await run(ours) : undefined
  const peerFigures = await orFailed(peer, () => run(peer))
  const figures = first ?? (await run(ours))
  return peerFigures === undefined ? undefined : { ours: figures, peer: peerFigures }
}

/** On a virtual machine the first use of free memory costs several times the second: it is not to depend on the order of runs. */
async function touchFreeMemory(): Promise<void> {
  const path = folder.join('free-memory')
  const piece = Buffer.alloc(4 * MiB, 1)
  const file = await open(path, 'w')
  for (let written = 0; written < Number(size?.bytes) * 1.5; written += piece.length) await file.write(piece)
  await file.close()
  await rm(path)
}

async function backup(side: Contestant): Promise<Figures> {
  await side.reset()
  const figures = await meter.measure(side.backup, side.env)
  stored.set(side.name, await side.storedBytes())
  return figures
}

async function orFailed(peer: Contestant, run: () => Promise<Figures>): Promise<Figures | undefined> {
  try {
    return await run()
  } catch (error) {
    say(`${peer.name} failed: ${error instanceof Error ? error.message : String(error)}`)
    return undefined
  }
}

async function restore(side: Contestant): Promise<Figures> {
  return inEmptyTarget((target) => meter.measure(side.restore(target), side.env))
}

async function profileRestore(): Promise<string> {
  await zstd1.reset()
  await meter.measure(zstd1.backup, zstd1.env)
  return inEmptyTarget((target) => profileStages(zstd1.restore(target), zstd1.env, join(reports, 'profile-restore')))
}

async function inEmptyTarget<T>(use: (target: string) => Promise<T>): Promise<T> {
  const target = await mkdtemp(folder.join('target-'))
  if (server.osUser !== undefined) await chown(target, server.osUser.uid, server.osUser.gid)
  try {
    return await use(target)
  } finally {
    await rm(target, { recursive: true })
  }
}

function say(line: string): void {
  process.stdout.write(`${line}\n`)
}
