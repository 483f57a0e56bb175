/** Repository sets in memory, a whole backup written in one call, and a reader that believes nothing. */
import { createHash } from 'node:crypto'
import { KeyEncryptionKey, type Keyring, keyedDigest } from '@tidemark/crypto'
import { type Clock, type Lsn, segmentRange, randomId, segmentStart, silentLogger, systemClock } from '@tidemark/kernel'
import { MemoryObjectStore, collect } from '@tidemark/storage/testing'
import { BackupWriter, type Committed, type SealingSettings } from '../backup-writer.ts'
import { ClusterLayout, PACK_TABLE } from '../layout.ts'
import { PackReader } from '../packs/pack-reader.ts'
import { readFileList } from '../read-file-list.ts'
import type { CommitRecord, RecordedServer } from '../records/documents.ts'
import { readSource } from '../read-source.ts'
import { readPackTable } from '../records/read-records.ts'
import { NO_SOURCE_FACTS } from '../records/source-document.ts'
import { type OpenedKeys, type Repository, type RepositorySet, initRepositorySet, openKeys } from '../set/repository.ts'
import { WalLayout, missingWal, readTimelineHistory, readWalSegment } from '../wal/wal-store.ts'
import { type SampleFile, sampleBytes, smallTree } from './sample-tree.ts'

export const noDeadline = new AbortController().signal
export const SEGMENT_BYTES = 65_536
export const CLUSTER = 'main'
export const SYSTEM_ID = '7301234567890123456'
/** Anybody has this key: for tests only. */
export const TEST_KEK = new KeyEncryptionKey(createHash('sha256').update('tidemark test kek').digest())

export const SAMPLE_SERVER: RecordedServer = {
  versionNum: 150_004,
  version: '15.4',
  walSegmentBytes: SEGMENT_BYTES,
  blockBytes: 8192,
  dataChecksums: true,
  minimumSettings: {},
  preloadLibraries: [],
  tablespaceOids: [],
}

export const sealing: SealingSettings = {
  suite: 'aes-256-gcm',
  compressionLevel: 1,
  threads: 1,
  uploads: 1,
  packBytes: 1_048_576,
}

export interface SampleSet {
  readonly stores: readonly MemoryObjectStore[]
  readonly set: RepositorySet
  readonly keys: OpenedKeys
}

/** @param required one repository for each, named a, b, c … @param clock of this host. @param storeClock of all stores. */
export async function newSampleSet(
  required: readonly boolean[] = [true],
  clock: Clock = systemClock,
  storeClock: Clock = systemClock,
): Promise<SampleSet> {
  const stores = required.map((_, i) => new MemoryObjectStore({ url: `memory://${i}`, deadlineMs: 1e9, storeClock }))
  const places = stores.map((store, i) => ({ name: 'abcdef'[i] ?? '', store, required: required[i] === true }))
  const deps = { clock, logger: silentLogger, signal: noDeadline }
  const { set } = await initRepositorySet(places, [TEST_KEK], undefined, deps)
  return { stores, set, keys: await openKeys(set, [TEST_KEK], noDeadline) }
}

export interface WriteOptions {
  readonly sealing?: Partial<SealingSettings>
  readonly clock?: Clock
  readonly signal?: AbortSignal
  readonly stoppedAt?: Date
  readonly verdict?: CommitRecord['verdict']
  readonly cluster?: string
  readonly timeline?: number
  readonly chunkBytes?: number
  /** Called after the files and before the commit. */
  readonly beforeCommit?: (writer: BackupWriter) => void | Promise<void>
  readonly leaveOutWal?: boolean
  /** Default: another one for each backup. */
  readonly operationId?: string
}

const START_LSN = (segmentStart(7n, SEGMENT_BYTES) + 40n) as Lsn
const STOP_LSN = (segmentStart(9n, SEGMENT_BYTES) + 1n) as Lsn

/** One whole backup: files, three WAL segments, the commit. */
export async function writeBackup(
  sample: Pick<SampleSet, 'set' | 'keys'>,
  tree: readonly SampleFile[] = smallTree(),
  options: WriteOptions = {},
): Promise<Committed & { backupId: string }> {
  const { clock = systemClock, signal = noDeadline, timeline = 1 } = options
  await using writer = await BackupWriter.begin(
    sample.set,
    sample.keys,
    {
      cluster: options.cluster ?? CLUSTER,
      systemId: SYSTEM_ID,
      operationId: options.operationId ?? `test-${randomId()}`,
      sealing: { ...sealing, ...options.sealing },
      writerVersion: 'test',
    },
    { clock, logger: silentLogger, signal },
  )
  writer.setStart(START_LSN)
  if (timeline > 1) await writer.addTimelineHistory(timeline, Buffer.from('1\t0/5000000\tno recovery target\n'))
  for (const file of tree) await writeFile(writer, file, options.chunkBytes ?? 300_000)
  const { first, last } = segmentRange(START_LSN, STOP_LSN, SEGMENT_BYTES)
  for (let segment = first; segment <= last; segment += 1n) {
    if (options.leaveOutWal === true && segment === first + 1n) continue
    const bytes = sampleBytes(`segment ${segment}`, SEGMENT_BYTES, false)
    await writer.addWalSegment({ timeline, segment, segmentBytes: SEGMENT_BYTES }, bytes)
  }
  await options.beforeCommit?.(writer)
  const committed = await writer.commit({
    timeline,
    startLsn: START_LSN,
    stopLsn: STOP_LSN,
    verdict: options.verdict ?? 'intact',
    damage: [],
    server: SAMPLE_SERVER,
    source: NO_SOURCE_FACTS,
    skipped: 0,
    stoppedAt: options.stoppedAt ?? clock.now(),
  })
  return { ...committed, backupId: writer.backupId }
}

async function writeFile(writer: BackupWriter, file: SampleFile, chunkBytes: number): Promise<void> {
  const { type, path, mode, linkTarget, bytes } = file
  writer.beginFile({ type, path, mode, modifiedAt: 1_700_000_000, size: bytes.length, linkTarget })
  for (let at = 0; at < bytes.length; at += chunkBytes) await writer.write(bytes.subarray(at, at + chunkBytes))
  await writer.endFile()
}

/** Every file of a backup as one repository alone gives it. Throws on anything that is not as the record says. */
export async function readBackup(
  repository: Repository,
  record: CommitRecord,
  keyring: Keyring,
): Promise<SampleFile[]> {
  const layout = new ClusterLayout(record.cluster, record.systemId)
  const base = layout.base(record.backupId)
  const table = await readPackTable(repository, record, noDeadline)
  const listed = (await collect(repository.store.list(base, { signal: noDeadline }))).map(({ name }) => name)
  const expected = [
    PACK_TABLE,
    ...[...table.packs, ...table.fileList, table.source].flatMap((entry) =>
      'backup' in entry && entry.backup !== undefined ? [] : [entry.name],
    ),
  ]
  if (
    listed.toSorted().join() !==
    expected
      .map((name) => base + name)
      .toSorted()
      .join()
  ) {
    throw new Error(`the folder holds ${listed.join()}`)
  }
  const packs: PackReader[] = []
  for (const { name, bytes, sha256, salt, backup: backupId = record.backupId } of table.packs) {
    const stored = await repository.store.get(layout.base(backupId) + name, { signal: noDeadline })
    const right = stored.length === bytes && createHash('sha256').update(stored).digest('hex') === sha256
    if (!right || stored.toString('hex', 32, 64) !== salt) throw new Error(`${name} is not the recorded one`)
    const ordinal = Number(name.slice('pack-'.length))
    packs.push(new PackReader(stored, { backupId, ordinal }, keyring.dataKey, name))
  }
  const files: SampleFile[] = []
  for await (const entry of readFileList(repository, record, table, keyring.dataKey, noDeadline)) {
    const bytes = Buffer.alloc(entry.size)
    for (const { pack, frame, frameOffset, length, fileOffset } of entry.extents) {
      const plaintext = packs[pack]?.open(frame)
      const digest = keyedDigest(keyring.digestKey, 'frame', plaintext ?? bytes)
      if (!digest.equals(packs[pack]?.digest(frame) ?? bytes)) throw new Error(`frame ${frame}: another digest`)
      plaintext?.copy(bytes, fileOffset, frameOffset, frameOffset + length)
    }
    files.push({ type: entry.type, path: entry.path, mode: entry.mode, bytes, linkTarget: entry.linkTarget })
  }
  await readSource(repository, record, table, keyring.dataKey, noDeadline)
  const missing = await missingWal(repository, layout, table, noDeadline)
  if (missing.length > 0) throw new Error(`missing ${missing.join()}`)
  const wal = new WalLayout(record.cluster, record.systemId)
  for (const name of table.wal) await readWalSegment(repository, wal, name, SEGMENT_BYTES, keyring, noDeadline)
  for (const name of table.history) await readTimelineHistory(repository, wal, name, keyring, noDeadline)
  return files
}

/** Sealing threads of this process that are alive. */
export function liveThreads(): number {
  return (process.report.getReport() as { workers: unknown[] }).workers.length
}
