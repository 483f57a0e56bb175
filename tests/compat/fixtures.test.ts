/** Repositories written by every version of the format stay readable. */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFileSync, readdirSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { FORMAT_VERSION } from '@tidemark/crypto'
import {
  ClusterLayout,
  type CommitRecord,
  type OpenedKeys,
  PackReader,
  type Repository,
  WalLayout,
  listBackups,
  missingWal,
  openKeys,
  openRepositorySet,
  readFileList,
  readPackTable,
  readTimelineHistory,
  readWalSegment,
} from '@tidemark/repository'
import { openObjectStore } from '@tidemark/storage'
import { TemporaryFolder } from '@tidemark/testkit'
import { expect, test } from 'vitest'
import type { Expected, ExpectedBackup } from './expected.ts'
import { FIXTURE_TEST_KEY } from './fixture-key.ts'

const FIXTURES = new URL('fixtures/', import.meta.url)
/** Never released: refused by name, not read. */
const DRAFT = '0-draft'
const { signal } = new AbortController()
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

test('there is a fixture of the present format', () => {
  expect(readdirSync(FIXTURES)).toContain(String(FORMAT_VERSION))
})

const READABLE = readdirSync(FIXTURES).filter((name) => name !== DRAFT)

test.each(READABLE)('format %s: every file of every backup has its SHA-256', async (version) => {
  await using folder = await TemporaryFolder.create('compat')
  const expected = JSON.parse(readFileSync(new URL(`${version}/expected.json`, FIXTURES), 'utf8')) as Expected
  const directory = await unpack(folder, version)
  await using store = await openObjectStore(`file://${directory}`)

  const set = await openRepositorySet([{ name: 'fixture', store, required: true }], expected.publicKey, signal)
  const keys = await openKeys(set, [FIXTURE_TEST_KEY], signal)
  const [repository] = set.repositories as [Repository]
  const { backups } = await listBackups(repository, set.publicKey, { limit: 100 }, signal)
  const listed = backups.toReversed()

  expect(set.setId).toBe(expected.setId)
  expect(listed.map(({ backupId }) => backupId)).toEqual(expected.backups.map(({ backupId }) => backupId))
  for (const [i, backup] of listed.entries()) {
    if (!('record' in backup)) throw new Error(`${backup.backupId} is not trusted: ${backup.untrusted.message}`)
    expect(await contentsOf(repository, backup.record, keys)).toEqual(withoutNames(expected.backups[i]))
  }
})

test('a repository of the draft format is refused by its version', async () => {
  await using folder = await TemporaryFolder.create('compat')
  await using store = await openObjectStore(`file://${await unpack(folder, DRAFT)}`)
  const open = openRepositorySet([{ name: 'fixture', store, required: true }], undefined, signal)
  await expect(open).rejects.toMatchObject({ code: 'REPOSITORY_VERSION', facts: { version: 0, readable: 1 } })
})

async function unpack(folder: TemporaryFolder, version: string): Promise<string> {
  const directory = folder.join('repository')
  await mkdir(directory)
  const archive = new URL(`${version}/repository.tar`, FIXTURES).pathname
  execFileSync('tar', ['--extract', '--no-same-owner', '--file', archive, '--directory', directory])
  return directory
}

function withoutNames(backup: ExpectedBackup | undefined): unknown {
  const { files, wal, history } = backup ?? {}
  return { files, wal, history }
}

async function contentsOf(repository: Repository, record: CommitRecord, { keyring }: OpenedKeys): Promise<unknown> {
  const wal = new WalLayout(record.cluster, record.systemId)
  const layout = new ClusterLayout(record.cluster, record.systemId)
  const table = await readPackTable(repository, record, signal)
  const packs: PackReader[] = []
  for (const { name, sha256: recorded } of table.packs) {
    const stored = await repository.store.get(layout.base(record.backupId) + name, { signal })
    expect(sha256(stored)).toBe(recorded)
    const place = { backupId: record.backupId, ordinal: Number(name.slice('pack-'.length)) }
    packs.push(new PackReader(stored, place, keyring.dataKey, name))
  }
  const files: unknown[] = []
  for await (const entry of readFileList(repository, record, table, keyring.dataKey, signal)) {
    const bytes = Buffer.alloc(entry.size)
    for (const { pack, frame, frameOffset, length, fileOffset } of entry.extents)
      packs[pack]?.open(frame).copy(bytes, fileOffset, frameOffset, frameOffset + length)
    files.push({ type: entry.type, path: entry.path, size: entry.size, sha256: sha256(bytes) })
  }
  expect(await missingWal(repository, layout, table, signal)).toEqual([])
  const segments: string[] = []
  for (const name of table.wal) {
    const { bytes } = await readWalSegment(repository, wal, name, record.server.walSegmentBytes, keyring, signal)
    segments.push(sha256(bytes))
  }
  const history: string[] = []
  for (const name of table.history) {
    history.push(sha256((await readTimelineHistory(repository, wal, name, keyring, signal)).bytes))
  }
  return { files, wal: segments, history }
}
