/**
 * `npm run scale`: what a restore and a verification hold of a backup, at sizes that nobody has at hand.
 *
 * Two trees: many small files, and 1 GiB files that make up 2 TB. Their file list is written, sealed and stored as a backup's is; packs are only
 * named, since their bytes are not the point, and no file is made: what is measured is planning, sorting and comparing, each in a
 * process of its own by the kernel's word for its largest size (VmHWM).
 * TIDEMARK_SCALE_FILES (5,000,000), TIDEMARK_SCALE_TERABYTES (2). Fails above 300 MiB.
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdir, readFile, readdir, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { KeyEncryptionKey } from '@tidemark/crypto'
import { MiB, keepHeapSmall, silentLogger, systemClock } from '@tidemark/kernel'
import { RestoreSpool, SpooledJoin } from '@tidemark/operations'
import {
  type CommitRecord,
  type FileEntry,
  FileListWriter,
  type PackTable,
  initRepositorySet,
  openKeys,
  openRepositorySet,
  readFileList,
} from '@tidemark/repository'
import { openObjectStore } from '@tidemark/storage'
import { TemporaryFolder } from '@tidemark/testkit'

const CEILING = 300 * MiB
const PACK_BYTES = 16 * MiB
const BACKUP_ID = '00112233445566ff'
const KEK = new KeyEncryptionKey(createHash('sha256').update('tidemark scale').digest())
const signal = new AbortController().signal

const files = Number(process.env['TIDEMARK_SCALE_FILES'] ?? 5_000_000)
const terabytes = Number(process.env['TIDEMARK_SCALE_TERABYTES'] ?? 2)

function* manySmallFiles(count: number): Generator<FileEntry> {
  const perFrame = 128
  for (let i = 0; i < count; i += 1) {
    if (i % 1000 === 0) yield entryOf('directory', `base/${16_384 + i / 1000}`, [])
    const frame = Math.floor(i / perFrame)
    const extent = {
      fileOffset: 0,
      length: 8192,
      frameOffset: (i % perFrame) * 8192,
      frame: frame % 64,
      pack: Math.floor(frame / 64),
    }
    yield entryOf('file', `base/${16_384 + Math.floor(i / 1000)}/${100_000 + i}`, [extent])
  }
}

/** Written by several threads, so that neighbouring frames lie in different packs. */
function* largeFiles(bytes: number): Generator<FileEntry> {
  const threads = 4
  yield entryOf('directory', 'base/1', [])
  for (let file = 0; file < bytes / 1024 ** 3; file += 1) {
    const extents = Array.from({ length: 1024 }, (_, i) => {
      const frame = file * 1024 + i
      const round = Math.floor(frame / threads)
      const pack = Math.floor(round / 16) * threads + (frame % threads)
      return { fileOffset: i * MiB, length: MiB, frameOffset: 0, frame: round % 16, pack }
    })
    yield entryOf('file', `base/1/16384.${file}`, extents)
  }
}

function entryOf(type: FileEntry['type'], path: string, extents: FileEntry['extents']): FileEntry {
  const size = extents.reduce((sum, { length }) => sum + length, 0)
  return { type, path, mode: 0o600, modifiedAt: 0, size, linkTarget: '', extents }
}

async function store(entries: Iterable<FileEntry>, folder: string): Promise<void> {
  await mkdir(join(folder, 'repository'))
  const place = { name: 'local', required: true, store: await openObjectStore(`file://${folder}/repository`) }
  const deps = { clock: systemClock, logger: silentLogger, signal }
  const { set } = await initRepositorySet([place], [KEK], undefined, deps)
  const { keyring } = await openKeys(set, [KEK], signal)
  const base = `clusters/scale/1/base/${BACKUP_ID}/`
  const put = (name: string, bytes: Uint8Array, sha256: string): Promise<void> =>
    place.store.put(base + name, bytes, { signal, sha256 })
  const writer = new FileListWriter({ backupId: BACKUP_ID, keyring, suite: 'aes-256-cbc-hmac-sha-256', store: put })
  let packs = 0
  for (const entry of entries) {
    for (const { pack } of entry.extents) packs = Math.max(packs, pack + 1)
    writer.add(entry)
    await writer.flushFullPart()
  }
  await writeFile(join(folder, 'table.json'), JSON.stringify({ packs, fileList: await writer.finish() }))
}

async function measure(folder: string): Promise<void> {
  const place = { name: 'local', required: true, store: await openObjectStore(`file://${folder}/repository`) }
  const set = await openRepositorySet([place], undefined, signal)
  const { keyring } = await openKeys(set, [KEK], signal)
  const [repository] = set.repositories
  if (repository === undefined) throw new Error('no repository')
  const { packs, fileList } = JSON.parse(await readFile(join(folder, 'table.json'), 'utf8')) as {
    packs: number
    fileList: PackTable['fileList']
  }
  const hex = 'ab'.repeat(32)
  const table = {
    packs: Array.from({ length: packs }, (_, i) => ({
      name: `pack-${String(i + 1).padStart(5, '0')}`,
      bytes: PACK_BYTES,
      sha256: hex,
      salt: hex,
    })),
    fileList,
  } as unknown as PackTable
  const record = { cluster: 'scale', systemId: '1', backupId: BACKUP_ID } as CommitRecord
  const entries = (): AsyncGenerator<FileEntry> => readFileList(repository, record, table, keyring.dataKey, signal)
  let found = 0
  {
    await using spool = await RestoreSpool.fill(join(folder, 'spool'), entries(), packs)
    for (let pack = 0; pack < packs; pack += 1) found += spool.rowsOf(pack).to - spool.rowsOf(pack).from
    process.stdout.write(
      `  ${spool.files} files, ${found} extents in ${packs} packs; spool ${Math.round(spool.bytes / MiB)} MiB; peak RSS so far ${Math.round((await peakBytes()) / MiB)} MiB\n`,
    )
  }
  await using comparison = new SpooledJoin(join(folder, 'comparison'))
  for await (const { path, size } of entries()) {
    await comparison.add('left', path, `${size} SHA256 ${hex}`)
    await comparison.add('right', path, `${size} SHA256 ${hex}`)
  }
  for await (const { key } of comparison.differences()) throw new Error(`${key} differs from itself`)
  const left = (await readdir(folder)).filter((name) => name === 'spool')
  if (left.length > 0) throw new Error('the spool was left behind')
}

/** The largest this process ever was, by the kernel. */
async function peakBytes(): Promise<number> {
  return Number(/VmHWM:\s+(\d+)/.exec(await readFile('/proc/self/status', 'utf8'))?.[1]) * 1024
}

async function runTree(name: string): Promise<void> {
  await using folder = await TemporaryFolder.create('scale')
  for (const step of ['store', 'measure']) {
    const args = [fileURLToPath(import.meta.url), step, name, folder.path]
    const { status } = spawnSync(process.execPath, args, { stdio: 'inherit' })
    if (status !== 0) throw new Error(`${name}: ${step} failed`)
  }
  const peak = (await stat(join(folder.path, 'peak'))).isFile()
    ? Number(await readFile(join(folder.path, 'peak'), 'utf8'))
    : Number.NaN
  process.stdout.write(`  peak RSS ${Math.round(peak / MiB)} MiB, ceiling ${CEILING / MiB} MiB\n`)
  if (!(peak <= CEILING)) throw new Error(`${name}: ${peak} bytes are more than ${CEILING}`)
}

const [step, name = '', folder = ''] = process.argv.slice(2)
const trees: Record<string, () => Iterable<FileEntry>> = {
  small: () => manySmallFiles(files),
  large: () => largeFiles(terabytes * 1e12),
}
if (step === 'store') await store(trees[name]?.() ?? [], folder)
else if (step === 'measure') {
  // As every app does that restores or verifies.
  keepHeapSmall()
  await measure(folder)
  await writeFile(join(folder, 'peak'), String(await peakBytes()))
} else {
  for (const tree of Object.keys(trees)) {
    process.stdout.write(`${tree} files\n`)
    await runTree(tree)
  }
}
