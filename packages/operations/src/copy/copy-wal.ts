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
  await runBounded(missing.values(), OBJECTS_AT_ONCE, signal, async (relative, signal) => {
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
    await refuseConflict(to, layout, relative, signal)
  })
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

async function refuseConflict(
  to: Repository,
  layout: ClusterLayout,
  relative: string,
  signal: AbortSignal,
): Promise<void> {
  const names: string[] = []
  const prefix = layout.folder + relative.slice(0, relative.lastIndexOf('-') + 1)
  for await (const { name } of to.store.list(prefix, { signal })) names.push(name)
  if (names.length > 1)
    throw new WalSegmentConflictError(relative.slice(relative.lastIndexOf('/') + 1, relative.lastIndexOf('-')), names)
}
