/** Fetching what a pack table vouches for, from whichever repository of the set still has it right. */
import { createHash } from 'node:crypto'
import { type Logger, OperationalError } from '@tidemark/kernel'
import {
  BackupIncompleteError,
  type CommitRecord,
  ClusterLayout,
  type PackEntry,
  type Repository,
} from '@tidemark/repository'
import { ObjectNotFoundError } from '@tidemark/storage'

/**
 * What the first repository gives without an error; the others are asked in turn.
 *
 * @throws the first repository's error, when none of them can.
 */
export async function fromAny<T>(
  sources: readonly Repository[],
  read: (source: Repository) => Promise<T>,
  logger: Logger,
  signal: AbortSignal,
): Promise<T> {
  let first: OperationalError | undefined
  for (const source of sources) {
    try {
      return await read(source)
    } catch (error) {
      if (signal.aborted || !(error instanceof OperationalError)) throw error
      first ??= error
      logger.warn(
        { repository: source.name, code: error.code, reason: error.message },
        'object not usable from this repository',
      )
    }
  }
  throw first ?? new RangeError('no repository to read from')
}

/**
 * A pack whose SHA-256 is the recorded one.
 *
 * @param sources repositories that may hold this backup, in the order to ask.
 * @throws {BackupIncompleteError} none of them has it right. @throws {StoreUnavailableError} the first could not be asked.
 */
export function fetchPack(
  sources: readonly Repository[],
  record: CommitRecord,
  pack: PackEntry,
  logger: Logger,
  signal: AbortSignal,
): Promise<Buffer> {
  const name = new ClusterLayout(record.cluster, record.systemId).base(pack.backup ?? record.backupId) + pack.name
  return fromAny(sources, (source) => readPack(source, name, pack, record.backupId, signal), logger, signal)
}

/** One repository's copy of a pack. @throws {BackupIncompleteError} it is gone, or not the recorded one. */
export async function readPack(
  source: Repository,
  name: string,
  pack: PackEntry,
  backupId: string,
  signal: AbortSignal,
): Promise<Buffer> {
  let bytes: Buffer
  try {
    bytes = await source.store.get(name, { signal })
  } catch (error) {
    if (error instanceof ObjectNotFoundError)
      throw new BackupIncompleteError(backupId, `${pack.name} in ${source.name}: it is not there`, error)
    throw error
  }
  if (createHash('sha256').update(bytes).digest('hex') === pack.sha256) return bytes
  throw new BackupIncompleteError(backupId, `${pack.name} in ${source.name}: its SHA-256 is not the recorded one`)
}
