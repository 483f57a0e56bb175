/** What comes damaged is read once more; what is damaged stays so. */
import { createHash, randomBytes, randomInt } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { MiB, silentLogger, systemClock } from '@tidemark/kernel'
import type { CommitRecord, RepositorySet } from '@tidemark/repository'
import { CLUSTER, type SampleSet, newSampleSet, noDeadline, writeBackup } from '@tidemark/repository/testing'
import type { GetOptions, ObjectStore } from '@tidemark/storage'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { verifyBackup } from '../verify/verify-backup.ts'
import { planRestore } from './plan-restore.ts'
import { type RestoreOutcome, restoreBackup } from './restore-backup.ts'

const seed = Number(process.env['TIDEMARK_TEST_SEED'] ?? randomInt(2 ** 31))
process.stderr.write(`TIDEMARK_TEST_SEED=${seed}\n`)
let drawn = 0
/** Both ends included. */
function integer(from: number, to: number): number {
  const digest = createHash('sha256')
    .update(`${seed} ${(drawn += 1)}`)
    .digest()
  return from + (digest.readUInt32BE(0) % (to - from + 1))
}
const OWNER = process.getuid?.() === 0 ? { uid: 12_345, gid: 12_345 } : undefined
let folder = ''
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tidemark-rereads-'))
})
afterEach(() => rm(folder, { recursive: true }))

interface Got {
  readonly name: string
  readonly bytes: number
}

/** A set whose reads pass through `spoil`, which may change the bytes on their way. */
function readThrough(sample: SampleSet, got: Got[], spoil: (name: string, bytes: Buffer) => void): RepositorySet {
  const repositories = sample.set.repositories.map((repository) => ({
    ...repository,
    store: new Proxy(repository.store, {
      get: (store: ObjectStore, key) => {
        if (key === 'get')
          return async (name: string, options: GetOptions): Promise<Buffer> => {
            const bytes = await store.get(name, options)
            got.push({ name, bytes: bytes.length })
            const copy = options.into === undefined ? Buffer.from(bytes) : bytes
            spoil(name, copy)
            return copy
          }
        const value: unknown = Reflect.get(store, key)
        return typeof value === 'function' ? (value.bind(store) as unknown) : value
      },
    }),
  }))
  return { ...sample.set, repositories }
}

function flip(bytes: Buffer): void {
  const at = integer(0, bytes.length - 1)
  bytes[at] = (bytes[at] ?? 0) ^ (1 << integer(0, 7))
}

interface SampleFile {
  readonly type: 'file' | 'directory'
  readonly path: string
  readonly mode: number
  readonly bytes: Buffer
  readonly linkTarget: string
}

const fileOf = (path: string, length: number) =>
  ({ type: 'file', path, mode: 0o600, bytes: randomBytes(length), linkTarget: '' }) as const
const folderOf = (path: string) =>
  ({ type: 'directory', path, mode: 0o700, bytes: Buffer.alloc(0), linkTarget: '' }) as const

const tree = withManifest([
  folderOf('base'),
  folderOf('global'),
  fileOf('global/pg_control', 8192),
  fileOf('base/small', 700),
  fileOf('base/empty', 0),
  fileOf('base/large', 1_300_000),
])

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex')
}

/** As PostgreSQL writes it (backup_manifest.c). */
function withManifest(files: readonly SampleFile[]): SampleFile[] {
  const lines = files
    .filter(({ type }) => type === 'file')
    .map(({ path, bytes }) => {
      const facts = { Path: path, Size: bytes.length, 'Last-Modified': '2026-01-01 00:00:00 GMT' }
      return JSON.stringify({ ...facts, 'Checksum-Algorithm': 'SHA256', Checksum: sha256(bytes) })
    })
  const head = `{ "PostgreSQL-Backup-Manifest-Version": 1,\n"Files": [\n${lines.join(',\n')}\n],\n"WAL-Ranges": [\n],\n`
  const bytes = Buffer.from(`${head}"Manifest-Checksum": "${sha256(Buffer.from(head))}"}\n`)
  return [...files, { type: 'file', path: 'backup_manifest', mode: 0o600, bytes, linkTarget: '' }]
}

async function restoreFrom(
  set: RepositorySet,
  { keys }: SampleSet,
  record: CommitRecord,
  name: string,
): Promise<RestoreOutcome> {
  const targetDirectory = join(folder, name)
  await mkdir(targetDirectory)
  const request = {
    backup: record.backupId,
    cluster: CLUSTER,
    repository: undefined,
    targetDirectory,
    profile: 'clone',
    owner: OWNER,
    allowDamaged: false,
  } as const
  const deps = { keyring: keys.keyring, logger: silentLogger, signal: noDeadline }
  const plan = await planRestore(request, { ...deps, set })
  return await restoreBackup(plan, { ...deps, threads: 2, clock: systemClock, progress: () => {} })
}

/** The plan reads some of them before the restore does, and counts for itself. */
const KINDS: [kind: string, pattern: RegExp, readsOfThePlan: number][] = [
  ['pack', /\/pack-/, 0],
  ['file list', /\/files-/, 1],
  ['source document', /\/source/, 1],
  ['WAL segment', /\/wal\/.*-/, 0],
]

describe.each(KINDS)('a bit of a %s that flips on the way', (_kind, pattern, readsOfThePlan) => {
  test('is read again, counted, and does no harm to a restore or a verification', async () => {
    const sample = await newSampleSet()
    const { record } = await writeBackup(sample, tree)
    const got: Got[] = []
    let flips = 0
    const every = (n: number): RepositorySet =>
      readThrough(sample, got, (name, bytes) => {
        if (!pattern.test(name)) return
        flips += 1
        if (flips === n) flip(bytes)
      })
    const clean = await restoreFrom(every(Infinity), sample, record, 'clean')
    expect(clean.rereads).toBe(0)
    const reads = flips
    expect(reads).toBeGreaterThan(0)
    for (let n = 1; n <= reads; n += 1) {
      flips = 0
      got.length = 0
      const restored = await restoreFrom(every(n), sample, record, `flip-${n}`)
      expect(got.filter(({ name }) => pattern.test(name))).toHaveLength(reads + 1)
      expect(restored.rereads).toBe(n <= readsOfThePlan ? 0 : 1)
      for (const { type, path, bytes } of tree) {
        if (type === 'file' && !(await readFile(join(folder, `flip-${n}`, path))).equals(bytes))
          throw new Error(`${path} differs`)
      }
    }
    flips = 0
    const request = { backup: record.backupId, cluster: CLUSTER, repository: undefined, level: 'contents' } as const
    const deps = { keyring: sample.keys.keyring, logger: silentLogger, signal: noDeadline, progress: () => {} }
    const { repositories } = await verifyBackup(request, { ...deps, set: every(1), threads: 2 })
    expect(repositories).toMatchObject([{ ok: true, problems: [], rereads: 1, files: 5 }])
  })

  test('of the repository itself is damage, read twice and no more', async () => {
    const sample = await newSampleSet()
    const { record } = await writeBackup(sample, tree)
    const got: Got[] = []
    let victim: string | undefined
    const set = readThrough(sample, got, (name, bytes) => {
      if (!pattern.test(name) || (victim !== undefined && victim !== name)) return
      victim = name
      bytes[bytes.length - 1] = (bytes[bytes.length - 1] ?? 0) ^ 1
      // Past the trailer, which only the pack's SHA-256 covers.
      bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1
    })
    await expect(restoreFrom(set, sample, record, 'target')).rejects.toMatchObject({
      code: expect.stringMatching(/^(?:BACKUP_INCOMPLETE|DOCUMENT_DAMAGED|SEAL_\w+)$/),
    })
    expect(got.filter(({ name }) => name === victim)).toHaveLength(2)
    const request = { backup: record.backupId, cluster: CLUSTER, repository: undefined, level: 'contents' } as const
    const deps = { keyring: sample.keys.keyring, logger: silentLogger, signal: noDeadline, progress: () => {} }
    const { repositories } = await verifyBackup(request, { ...deps, set, threads: 2 })
    expect(repositories).toMatchObject([{ ok: false }])
    expect(repositories[0]?.problems[0]).toMatch(/^(?:BACKUP_INCOMPLETE|DOCUMENT_DAMAGED|SEAL_\w+): /)
  })
})

const nothing = (_name: string, _bytes: Buffer): void => {}

test('a bit of the id of a key that flips on the way is read again, and asks for no other key', async () => {
  const sample = await newSampleSet()
  const { record } = await writeBackup(sample, tree)
  for (const [kind, pattern] of [KINDS[0], KINDS[3]].flatMap((each) => (each === undefined ? [] : [each]))) {
    let spoilt = false
    const set = readThrough(sample, [], (name, bytes) => {
      if (spoilt || !pattern.test(name)) return
      spoilt = true
      // Of the header (docs/repository-format.md, section 2.1): bytes 16 to 31.
      bytes[20] = (bytes[20] ?? 0) ^ 1
    })
    expect(await restoreFrom(set, sample, record, kind)).toMatchObject({ rereads: 1 })
  }
})

describe('packs that are larger than what may be held', () => {
  const large = withManifest(Array.from({ length: 5 }, (_, i) => fileOf(`base/${i}`, 9 * MiB)))

  test.each(['packs', 'contents'] as const)('are verified in parts (level %s)', async (level) => {
    const sample = await newSampleSet()
    const { record } = await writeBackup(sample, large, { sealing: { packBytes: 64 * MiB, compressionLevel: 0 } })
    const got: Got[] = []
    let spoilt = false
    let spoil = nothing
    const set = readThrough(sample, got, (name, bytes) => spoil(name, bytes))
    const request = { backup: record.backupId, cluster: CLUSTER, repository: undefined, level } as const
    const deps = { keyring: sample.keys.keyring, logger: silentLogger, signal: noDeadline, progress: () => {} }
    const problemsOf = async (): Promise<string[]> => {
      const { repositories } = await verifyBackup(request, { ...deps, set, threads: 2 })
      return [...(repositories[0]?.problems ?? ['not there'])]
    }
    expect(await problemsOf()).toEqual([])
    const parts = got.filter(({ name }) => name.includes('/pack-'))
    expect(parts.reduce((sum, { bytes }) => sum + bytes, 0)).toBeGreaterThan(44 * MiB)
    expect(Math.max(...parts.map(({ bytes }) => bytes))).toBeLessThanOrEqual(18 * MiB)

    // On the way, in any of the reads.
    const wanted = integer(1, parts.length)
    let reads = 0
    spoil = (name, bytes) => {
      if (name.includes('/pack-') && (reads += 1) === wanted) {
        flip(bytes)
        spoilt = true
      }
    }
    expect(await problemsOf()).toEqual([])
    expect(spoilt).toBe(true)

    // Where it lies.
    spoil = nothing
    const [store] = sample.stores
    const pack = store?.names().find((name) => name.includes('/pack-')) ?? ''
    const stored = store?.bytesOf(pack) ?? Buffer.alloc(0)
    flip(stored)
    await store?.put(pack, stored, { signal: noDeadline })
    expect(await problemsOf()).not.toEqual([])
  })
})
