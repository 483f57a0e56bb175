/** Reading a backup from whichever repository of the set still has it right. */
import { createHash } from 'node:crypto'
import { type Logger, MiB, OperationalError, freeBuffer } from '@tidemark/kernel'
import {
  BackupIncompleteError,
  type CommitRecord,
  type PackEntry,
  type PackTable,
  type Repository,
} from '@tidemark/repository'
import { ObjectNotFoundError, ObjectTooLargeError } from '@tidemark/storage'
import { Rereads } from './rereads.ts'

/** One backup and where it may be read, in the order to ask. */
export class BackupReader {
  readonly record: CommitRecord
  readonly table: PackTable
  readonly sources: readonly Repository[]
  readonly rereads: Rereads
  readonly #logger: Logger

  constructor(
    { record, table, sources }: { record: CommitRecord; table: PackTable; sources: readonly Repository[] },
    logger: Logger,
  ) {
    this.record = record
    this.table = table
    this.sources = sources
    this.rereads = new Rereads(logger)
    this.#logger = logger
  }

  /**
   * What the first repository gives without an error; what it gives damaged is read once more, then the others are asked in turn.
   *
   * @throws the first repository's error, when none of them can; at once what no other repository can mend (the target).
   */
  async fromAny<T>(signal: AbortSignal, read: (source: Repository) => Promise<T>): Promise<T> {
    let first: OperationalError | undefined
    for (const source of this.sources) {
      try {
        return await this.rereads.once(source, signal, () => read(source))
      } catch (error) {
        if (signal.aborted || !(error instanceof OperationalError) || OF_NO_REPOSITORY.has(error.code)) throw error
        first ??= error
        this.#logger.warn(
          { repository: source.name, code: error.code, reason: error.message },
          'object not usable from this repository',
        )
      }
    }
    throw first ?? new RangeError('no repository to read from')
  }

  incomplete(missing: string, cause?: unknown): BackupIncompleteError {
    return new BackupIncompleteError(this.record.backupId, missing, cause)
  }

  /** Runs `read`; an object that is gone or is not the recorded one becomes a BackupIncompleteError that names it. */
  async explained<T>(object: string, source: Repository, read: () => Promise<T>): Promise<T> {
    try {
      return await read()
    } catch (error) {
      if (!(error instanceof OperationalError)) throw error
      if (error instanceof ObjectNotFoundError)
        throw this.incomplete(`${object} in ${source.name}: it is not there`, error)
      if (error instanceof ObjectTooLargeError || error.code.startsWith('SEAL_'))
        throw this.incomplete(`${object} in ${source.name}: it is not the recorded one (${error.message})`, error)
      throw error
    }
  }
}

/** Codes of errors that another repository would end in too. An unknown key is none: its id may be damaged here, and the plan has seen the real ones. */
const OF_NO_REPOSITORY: ReadonlySet<string> = new Set(['TARGET_WRITE_FAILED'])

/** One repository's copy of a pack. @throws {BackupIncompleteError} it is gone, or not the recorded one. */
export async function readPack(
  source: Repository,
  name: string,
  pack: Pick<PackEntry, 'name' | 'bytes' | 'sha256'>,
  backupId: string,
  signal: AbortSignal,
): Promise<Buffer> {
  const bytes = await readRange(source, name, pack, { offset: 0, length: pack.bytes }, backupId, signal)
  if (createHash('sha256').update(bytes).digest('hex') === pack.sha256) return bytes
  throw new BackupIncompleteError(backupId, `${pack.name} in ${source.name}: its SHA-256 is not the recorded one`)
}

/** What an object is read by where nothing more is wanted of it than its SHA-256. */
const CHECKED_BYTES = 18 * MiB

/**
 * Compares one repository's copy of an object with what is recorded of it, a range at a time.
 *
 * @param ends of the ranges, ascending, the last one the object's size; default: as many as keep each at 18 MiB, which is one for an ordinary pack.
 * @returns hex SHA-256 of each range. @throws {BackupIncompleteError} it is gone, or not the recorded one.
 */
export async function checkPack(
  source: Repository,
  name: string,
  pack: Pick<PackEntry, 'name' | 'bytes' | 'sha256'>,
  backupId: string,
  signal: AbortSignal,
  ends: readonly number[] = evenEnds(pack.bytes),
): Promise<string[]> {
  const whole = createHash('sha256')
  const ranges: string[] = []
  let offset = 0
  for (const end of ends) {
    const bytes = await readRange(source, name, pack, { offset, length: end - offset }, backupId, signal)
    whole.update(bytes)
    if (ends.length > 1) ranges.push(createHash('sha256').update(bytes).digest('hex'))
    freeBuffer(bytes)
    offset = end
  }
  // Of a single range, it is that of the whole.
  if (whole.digest('hex') === pack.sha256) return ends.length > 1 ? ranges : [pack.sha256]
  throw new BackupIncompleteError(backupId, `${pack.name} in ${source.name}: its SHA-256 is not the recorded one`)
}

/** Exactly these bytes of an object. @throws {BackupIncompleteError} it is gone, or has another size than recorded. */
export async function readRange(
  source: Repository,
  name: string,
  pack: Pick<PackEntry, 'name' | 'bytes'>,
  range: { readonly offset: number; readonly length: number },
  backupId: string,
  signal: AbortSignal,
): Promise<Buffer> {
  const incomplete = (why: string, cause?: unknown): BackupIncompleteError =>
    new BackupIncompleteError(backupId, `${pack.name} in ${source.name}: ${why}`, cause)
  let bytes: Buffer
  try {
    const isLast = range.offset + range.length === pack.bytes
    const length = isLast ? range.length + 1 : range.length
    const all = isLast && range.offset === 0
    // What lies beyond the recorded end is noticed: by the bound, or by a byte that should not be there.
    bytes = await source.store.get(name, {
      signal,
      maxBytes: all ? range.length : length,
      ...(all ? {} : { range: { offset: range.offset, length } }),
    })
  } catch (error) {
    if (error instanceof ObjectNotFoundError) throw incomplete('it is not there', error)
    if (error instanceof ObjectTooLargeError) throw incomplete('it is larger than recorded', error)
    throw error
  }
  if (bytes.length === range.length) return bytes
  throw incomplete(bytes.length > range.length ? 'it is larger than recorded' : 'it is shorter than recorded')
}

function evenEnds(bytes: number): number[] {
  const ends: number[] = []
  for (let end = CHECKED_BYTES; end < bytes; end += CHECKED_BYTES) ends.push(end)
  return [...ends, bytes]
}
