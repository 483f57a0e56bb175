/**
 * Writes a fixture: a small file repository as the present version makes it, and what a reader must find in it.
 *
 *   node tests/compat/make-fixture.ts 1
 *
 * Format the new expected.json (`oxfmt`). Once a format is released its fixture is never made again: it stands for the repositories that are out there. The repository is kept
 * as a tar archive, so that no formatter or line-ending rule touches a signed byte.
 */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Lsn, segmentStart, silentLogger, systemClock } from '@tidemark/kernel'
import {
  BackupWriter,
  NO_SOURCE_FACTS,
  type OpenedKeys,
  type RepositorySet,
  initRepositorySet,
  openKeys,
} from '@tidemark/repository'
import { openObjectStore } from '@tidemark/storage'
import type { Expected, ExpectedBackup } from './expected.ts'
import { FIXTURE_TEST_KEY } from './fixture-key.ts'

const SEGMENT_BYTES = 1_048_576
const SUITES = ['aes-256-cbc-hmac-sha-256', 'aes-256-gcm'] as const
const { signal } = new AbortController()

interface SourceFile {
  readonly type: 'file' | 'directory'
  /** One character per byte. */
  readonly path: string
  readonly bytes: Buffer
}

const [version] = process.argv.slice(2)
if (version === undefined || !/^[0-9a-z.-]+$/.test(version)) throw new Error('name the format version, such as 1')
const folder = new URL(`fixtures/${version}/`, import.meta.url).pathname
const repository = await mkdtemp(join(tmpdir(), 'tidemark-fixture-'))
const store = await openObjectStore(`file://${repository}`, { create: true })
const places = [{ name: 'fixture', store, required: true }]
const deps = { clock: systemClock, logger: silentLogger, signal }
const { set } = await initRepositorySet(places, [FIXTURE_TEST_KEY], undefined, deps)
const keys = await openKeys(set, [FIXTURE_TEST_KEY], signal)
const backups: ExpectedBackup[] = []
for (const [i, suite] of SUITES.entries()) backups.push(await writeBackup(set, keys, suite, i + 1))
const expected: Expected = { setId: set.setId, publicKey: set.publicKey, backups }
await mkdir(folder, { recursive: true })
await writeFile(join(folder, 'expected.json'), `${JSON.stringify(expected, null, 2)}\n`)
const archive = join(folder, 'repository.tar')
const neutral = ['--owner=0', '--group=0', '--mode=u=rwX,go=rX', '--sort=name', '--exclude=.tmp']
execFileSync('tar', ['--create', '--file', archive, '--directory', repository, ...neutral, '.'])
await rm(repository, { recursive: true })

async function writeBackup(
  set: RepositorySet,
  keys: OpenedKeys,
  suite: (typeof SUITES)[number],
  timeline: number,
): Promise<ExpectedBackup> {
  const sealing = { suite, compressionLevel: 3, threads: 1, uploads: 1, packBytes: 65_536 }
  const options = {
    cluster: 'main',
    systemId: '7301234567890123456',
    operationId: suite,
    sealing,
    writerVersion: 'fixture',
  }
  await using writer = await BackupWriter.begin(set, keys, options, deps)
  const startLsn = (segmentStart(9n, SEGMENT_BYTES) + 40n) as Lsn
  const stopLsn = (startLsn + BigInt(SEGMENT_BYTES)) as Lsn
  writer.setStart(startLsn)
  const history = Buffer.from('1\t0/5000000\tno recovery target specified\n')
  if (timeline > 1) await writer.addTimelineHistory(timeline, history)
  const files = sourceTree()
  for (const { type, path, bytes } of files) {
    const mode = type === 'file' ? 0o600 : 0o700
    writer.beginFile({ type, path, mode, modifiedAt: 1_700_000_000, size: bytes.length, linkTarget: '' })
    await writer.write(bytes)
    await writer.endFile()
  }
  const segments = [9n, 10n].map((segment) => ({ segment, bytes: Buffer.alloc(SEGMENT_BYTES, `WAL ${segment}`) }))
  for (const { segment, bytes } of segments)
    await writer.addWalSegment({ timeline, segment, segmentBytes: SEGMENT_BYTES }, Buffer.from(bytes))
  const server = {
    versionNum: 150_004,
    version: '15.4',
    walSegmentBytes: SEGMENT_BYTES,
    blockBytes: 8192,
    dataChecksums: true,
    minimumSettings: { max_connections: '100' },
    preloadLibraries: [],
    tablespaceOids: [],
  }
  const stoppedAt = new Date(Date.UTC(2026, 0, timeline))
  const { record } = await writer.commit({
    timeline,
    startLsn,
    stopLsn,
    verdict: 'intact',
    damage: [],
    server,
    source: { ...NO_SOURCE_FACTS, role: 'fixture', dataDirectory: '/var/lib/postgresql/15/main' },
    skipped: 0,
    stoppedAt,
  })
  return {
    backupId: record.backupId,
    suite,
    files: files.map(({ type, path, bytes }) => ({ type, path, size: bytes.length, sha256: sha256(bytes) })),
    wal: segments.map(({ bytes }) => sha256(bytes)),
    history: timeline > 1 ? [sha256(history)] : [],
  }
}

/** Empty, small, shared, border-sized and large; compressible and not; names with any byte. */
function sourceTree(): SourceFile[] {
  return [
    { type: 'directory', path: 'base', bytes: Buffer.alloc(0) },
    { type: 'directory', path: 'base/1', bytes: Buffer.alloc(0) },
    file('PG_VERSION', Buffer.from('15\n')),
    file('base/1/empty', Buffer.alloc(0)),
    ...Array.from({ length: 12 }, (_, i) => file(`base/1/${2600 + i}`, text(i * 5_000))),
    file('base/1/noise', noise('noise', 40_000)),
    file('base/1/quarter', text(262_144)),
    file('base/1/quarter_less_one', text(262_143)),
    file('base/1/own_frame_noise', noise('more', 262_144)),
    file('base/1/zeros', Buffer.alloc(2_097_153)),
    file('odd \xfc \x01 "name"', Buffer.from('odd')),
  ]
}

function noise(name: string, length: number): Buffer {
  const blocks: Buffer[] = []
  for (let i = 0; i * 32 < length; i += 1) blocks.push(Buffer.from(sha256(Buffer.from(`${name} ${i}`)), 'hex'))
  return Buffer.concat(blocks).subarray(0, length)
}

function file(path: string, bytes: Buffer): SourceFile {
  return { type: 'file', path, bytes }
}

function text(length: number): Buffer {
  return Buffer.alloc(length, 'the tide marks the sand where it has been. ')
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}
