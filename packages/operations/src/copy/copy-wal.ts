/** The WAL and history objects of a backup, copied without a key. */
import { createHash } from 'node:crypto'
import { SealRefusedError } from '@tidemark/crypto'
import { freeBuffer } from '@tidemark/kernel'
import {
  BackupIncompleteError,
  ClusterLayout,
  type CommitRecord,
  MAX_BYTES,
  type PackTable,
  type Repository,
  StoredOtherwiseError,
  WalSegmentConflictError,
  maxWalBytes,
  missingWal,
  putProven,
  readBack,
} from '@tidemark/repository'
import { ObjectNotFoundError } from '@tidemark/storage'
import { runBounded } from '../threads/run-bounded.ts'

const MAGIC = Buffer.from('TIDEMARK', 'ascii')
/** Where docs/repository-format.md, section 2.1, has the keyed digest of a WAL segment, and the stream id of a history file. */
const DIGEST_AT = { wal: 64 + 32, history: 64 }
const OBJECTS_AT_ONCE = 4
/** Segments may have up to 1 GiB. */
const BYTES_AT_ONCE = 64 * 1024 * 1024

/**
 * Sends what the target lacks. Nothing recorded vouches for these bytes: an object has to be a sealed stream that says it is the one its name says,
 * and to come the same twice, since what the network changes would be kept for good. Damage at rest is copied: only whoever holds the key sees it.
 *
 * @throws {WalSegmentConflictError} the target has other contents for a segment; both are kept.
 * @throws {BackupIncompleteError} the source lacks one. @throws {SealRefusedError} it is another one than its name says.
 * @throws {StoredOtherwiseError} the source gives other bytes each time.
 */
export async function copyWal(
  from: Repository,
  to: Repository,
  record: CommitRecord,
  table: PackTable,
  signal: AbortSignal,
): Promise<{ objects: number; bytes: number }> {
  const layout = new ClusterLayout(record.cluster, record.systemId)
  let objects = 0
  let bytes = 0
  const missing = await missingWal(to, layout, table, signal)
  if (missing.length === 0) return { objects, bytes }
  // Before: what was put would be there the next time, and nobody would look. After: somebody may archive meanwhile.
  await refuseConflicts(to, layout, table, signal)
  const atOnce = Math.max(1, Math.min(OBJECTS_AT_ONCE, Math.floor(BYTES_AT_ONCE / record.server.walSegmentBytes)))
  await runBounded(missing.values(), atOnce, signal, async (relative, signal) => {
    const what = `${relative} in ${from.name}`
    const maxBytes = relative.includes('.history-') ? MAX_BYTES.history : maxWalBytes(record.server.walSegmentBytes)
    const read = (): Promise<Buffer> =>
      getPart(from, layout.folder + relative, { backupId: record.backupId, what, maxBytes }, signal)
    const { stored, sha256 } = await readTwice(from, layout.folder + relative, read, signal)
    checkHeader(stored, relative, what)
    await putProven(to, layout.folder + relative, stored, sha256, signal)
    objects += 1
    bytes += stored.length
    freeBuffer(stored)
  })
  await refuseConflicts(to, layout, table, signal)
  return { objects, bytes }
}

/** The bytes that a second read gives, too; read anew once where the two differ. */
async function readTwice(
  from: Repository,
  name: string,
  read: () => Promise<Buffer>,
  signal: AbortSignal,
): Promise<{ stored: Buffer; sha256: string }> {
  for (let attempt = 1; ; attempt += 1) {
    const stored = await read()
    const sha256 = createHash('sha256').update(stored).digest('hex')
    try {
      await readBack(from, name, stored.length, sha256, signal)
      return { stored, sha256 }
    } catch (error) {
      if (!(error instanceof StoredOtherwiseError) || attempt === 2) throw error
    }
    freeBuffer(stored)
  }
}

async function getPart(
  from: Repository,
  name: string,
  { backupId, what, maxBytes }: { readonly backupId: string; readonly what: string; readonly maxBytes: number },
  signal: AbortSignal,
): Promise<Buffer> {
  try {
    return await from.store.get(name, { signal, maxBytes })
  } catch (error) {
    if (error instanceof ObjectNotFoundError) throw new BackupIncompleteError(backupId, what, error)
    throw error
  }
}

function checkHeader(stored: Buffer, relative: string, what: string): void {
  if (!stored.subarray(0, MAGIC.length).equals(MAGIC)) throw new SealRefusedError('not-sealed', what)
  const at = relative.includes('.history-') ? DIGEST_AT.history : DIGEST_AT.wal
  const digest = relative.slice(relative.lastIndexOf('-') + 1)
  if (stored.toString('hex', at, at + 16) !== digest) throw new SealRefusedError('identity', what)
}

/**
 * That no segment of the table has other contents in the target. One listing for each folder of WAL, held against the table as both go by. Of
 * history files there may be several: a timeline id that is used again has another history, and each backup names its own.
 *
 * @throws {WalSegmentConflictError} with the names of all contents of the first such segment.
 */
export async function refuseConflicts(
  to: Repository,
  layout: ClusterLayout,
  { wal }: Pick<PackTable, 'wal'>,
  signal: AbortSignal,
): Promise<void> {
  let next = 0
  while (next < wal.length) {
    const first = wal.at(next) ?? ''
    const folder = first.slice(0, first.lastIndexOf('/') + 1)
    const startAfter = layout.folder + contentsOf(first)
    for await (const { name } of to.store.list(layout.folder + folder, { signal, startAfter })) {
      const relative = name.slice(layout.folder.length)
      while (inFolder(wal.at(next), folder) && contentsOf(wal.at(next) ?? '') < contentsOf(relative)) next += 1
      const wanted = wal.at(next)
      if (!inFolder(wanted, folder)) break
      if (contentsOf(wanted) === contentsOf(relative) && wanted !== relative)
        await throwConflict(to, layout, wanted, relative, signal)
    }
    while (inFolder(wal.at(next), folder)) next += 1
  }
}

function inFolder(name: string | undefined, folder: string): name is string {
  return name?.startsWith(folder) === true
}

/** What the names of all contents of one segment start with. */
function contentsOf(relative: string): string {
  return relative.slice(0, relative.lastIndexOf('-') + 1)
}

async function throwConflict(
  to: Repository,
  layout: ClusterLayout,
  wanted: string,
  found: string,
  signal: AbortSignal,
): Promise<never> {
  const names = new Set([layout.folder + wanted, layout.folder + found])
  for await (const { name } of to.store.list(layout.folder + contentsOf(wanted), { signal })) names.add(name)
  throw new WalSegmentConflictError(wanted.slice(wanted.lastIndexOf('/') + 1, wanted.lastIndexOf('-')), [...names])
}
