/**
 * Brings the contents: packs are fetched, and threads open their frames and write them to where they belong.
 *
 * Memory: a buffer of BUFFER_BYTES for each thread and one more, whatever the size of packs: a larger pack comes in parts. Where the
 * target has bytes already, a pack's frame table is fetched first and only frames whose digest differs follow.
 */
import { HEADER_BYTES } from '@tidemark/crypto'
import { MiB, type ReportProgress, throwIfAborted } from '@tidemark/kernel'
import { ClusterLayout, PACK_TAIL_BYTES, type PackEntry, type Repository } from '@tidemark/repository'
import { runBounded } from '../threads/run-bounded.ts'
import type { ThreadPool } from '@tidemark/kernel/threads'
import { BackupReader } from './fetch-pack.ts'
import { LentBuffers } from './lent-buffers.ts'
import type { PackRequest, RestoreReply, RestoreRequest, Survey } from './restore-thread.ts'
import type { RestoreSpool } from './spool/restore-spool.ts'

/** A pack of 16 MiB with its last frame and table goes in whole. */
const BUFFER_BYTES = 18 * MiB
/** Frames that are not wanted are fetched with their neighbours where a request of their own would cost more. */
const GAP_BYTES = MiB / 2

export type RestorePool = ThreadPool<RestoreRequest, RestoreReply>

export interface FillDeps {
  readonly reader: BackupReader
  readonly spool: RestoreSpool
  readonly pool: RestorePool
  /** The target has bytes of an earlier restore. */
  readonly compare: boolean
  readonly signal: AbortSignal
  readonly progress: ReportProgress
  /** Called once for each pack, in any order, when everything in it is written. */
  readonly packDone: (pack: number) => void
}

export interface Filled {
  /** Written, or there already. */
  readonly bytes: number
  /** Of these: there already. */
  readonly sameBytes: number
  readonly fetchedBytes: number
}

/** @throws {BackupIncompleteError} @throws {TargetWriteError} @throws {StoreUnavailableError} @throws {UnknownDataKeyError} */
export async function fillFiles(deps: FillDeps): Promise<Filled> {
  const filler = new Filler(deps)
  const { packs } = deps.reader.table
  await runBounded(farApart(packs.length, deps.pool.size), deps.pool.size + 1, deps.signal, (i, signal) =>
    filler.fill(i, signal),
  )
  return filler.filled
}

interface Tally {
  bytes: number
  sameBytes: number
}

class Filler {
  readonly filled = { bytes: 0, sameBytes: 0, fetchedBytes: 0 }
  readonly #deps: FillDeps
  readonly #buffers: LentBuffers

  constructor(deps: FillDeps) {
    this.#deps = deps
    const largest = deps.reader.table.packs.largest?.bytes ?? 0
    this.#buffers = new LentBuffers(deps.pool.size + 1, Math.min(BUFFER_BYTES, largest))
  }

  async fill(number: number, signal: AbortSignal): Promise<void> {
    const { spool, reader, compare } = this.#deps
    const entry = reader.table.packs.at(number)
    if (entry === undefined) throw new RangeError(`pack ${number} is not in the pack table`)
    const rows = spool.rowsOf(number)
    if (rows.from < rows.to) {
      await reader.fromAny(signal, async (source) => {
        // What a source gave before it failed comes again from the next one.
        const tally = { bytes: 0, sameBytes: 0 }
        const { backupId, ordinal, name } = placeOf(entry, reader)
        const what = `${entry.name} of backup ${backupId} in ${source.name}`
        const pack: PackRequest = { backupId, ordinal, bytes: entry.bytes, salt: entry.salt, what, rows }
        await reader.explained(entry.name, source, async () => {
          try {
            if (compare || entry.bytes > BUFFER_BYTES) await this.#inParts(source, name, pack, tally, signal)
            else await this.#write(source, name, { offset: 0, length: pack.bytes }, pack, undefined, tally, signal)
          } catch (error) {
            this.filled.bytes -= tally.bytes
            this.filled.sameBytes -= tally.sameBytes
            throw error
          }
        })
      })
    }
    this.#deps.packDone(number)
  }

  async #inParts(
    source: Repository,
    name: string,
    pack: PackRequest,
    tally: Tally,
    signal: AbortSignal,
  ): Promise<void> {
    const { pool, compare } = this.#deps
    const tailOffset = Math.max(0, pack.bytes - PACK_TAIL_BYTES)
    const ranged = (offset: number, length: number): Promise<Buffer> =>
      source.store.get(name, { signal, range: { offset, length }, maxBytes: length })
    const [header, tail] = await Promise.all([
      ranged(0, Math.min(HEADER_BYTES, pack.bytes)),
      ranged(tailOffset, pack.bytes - tailOffset),
    ])
    this.filled.fetchedBytes += header.length + tail.length
    const surveyed = (await pool.call({ type: 'survey', pack, header, tail, compare })) as Survey
    this.filled.sameBytes += surveyed.sameBytes
    tally.sameBytes += surveyed.sameBytes
    this.#advance(surveyed.sameBytes, 0, tally)
    for (const { offset, length, frames } of partsOf(surveyed.wanted)) {
      throwIfAborted(signal, 'the restore')
      await this.#write(source, name, { offset, length }, pack, { header, tail, offset, frames }, tally, signal)
    }
  }

  async #write(
    source: Repository,
    name: string,
    range: { readonly offset: number; readonly length: number },
    pack: PackRequest,
    part: Extract<RestoreRequest, { type: 'write' }>['part'],
    tally: Tally,
    signal: AbortSignal,
  ): Promise<void> {
    const buffer = this.#buffers.take()
    try {
      const into = new Uint8Array(buffer)
      const options = part === undefined ? { signal, into } : { signal, into, range }
      const { length } = await source.store.get(name, options)
      if (length !== range.length) throw this.#deps.reader.incomplete(`${pack.what}: it has another size`)
      const request = { type: 'write', pack, buffer, length, ...(part === undefined ? {} : { part }) } as const
      const reply = await this.#deps.pool.call(request, [buffer])
      if (reply === undefined || !('buffer' in reply)) throw new TypeError('a thread gave no buffer back')
      this.#buffers.giveBack(reply.buffer)
      this.#advance(reply.bytes, length, tally)
    } catch (error) {
      this.#buffers.giveUp()
      throw error
    }
  }

  #advance(bytes: number, fetched: number, tally: Tally): void {
    const { reader, progress, spool } = this.#deps
    tally.bytes += bytes
    this.filled.bytes += bytes
    this.filled.fetchedBytes += fetched
    progress({
      phase: 'copy',
      bytesDone: this.filled.bytes,
      bytesTotal: reader.record.totals.bytes,
      bytesStored: this.filled.fetchedBytes,
      files: spool.files,
    })
  }
}

/** 1 GiB of packs: as much as PostgreSQL's largest files. */
const STRETCH_PACKS = 64

/**
 * 0 … count−1 from as many places at once as there are threads: neighbours lie in the same large file, and Linux lets only one writer
 * at a time into a file, so that threads which follow each other through the packs spend much of their time waiting for its lock.
 *
 * No farther apart than that takes, since files are synced in the order of packs.
 */
export function* farApart(count: number, threads: number, stretchPacks = STRETCH_PACKS): Generator<number> {
  for (let block = 0; block < count; block += threads * stretchPacks) {
    const end = Math.min(block + threads * stretchPacks, count)
    const stretch = Math.ceil((end - block) / threads)
    for (let i = 0; i < stretch; i += 1) {
      for (let pack = block + i; pack < end; pack += stretch) yield pack
    }
  }
}

function placeOf(
  { name, backup }: PackEntry,
  { record }: BackupReader,
): { backupId: string; ordinal: number; name: string } {
  const backupId = backup ?? record.backupId
  const folder = new ClusterLayout(record.cluster, record.systemId).base(backupId)
  return { backupId, ordinal: Number(name.slice('pack-'.length)), name: folder + name }
}

interface Part {
  offset: number
  length: number
  readonly frames: Float64Array
}

/** Wanted frames by what is fetched at once: neighbours together, and never more than a buffer holds. @param wanted see Survey. */
export function* partsOf(wanted: Float64Array, bufferBytes = BUFFER_BYTES, gapBytes = GAP_BYTES): Generator<Part> {
  let frames: number[] = []
  let [begin, end] = [0, 0]
  for (let i = 0; i < wanted.length; i += 3) {
    const [frame = 0, from = 0, to = 0] = wanted.subarray(i, i + 3)
    const fits = frames.length > 0 && from >= end && from - end <= gapBytes && to - begin <= bufferBytes
    if (!fits) {
      if (frames.length > 0) yield { offset: begin, length: end - begin, frames: Float64Array.from(frames) }
      frames = []
      begin = from
    }
    frames.push(frame)
    end = to
  }
  if (frames.length > 0) yield { offset: begin, length: end - begin, frames: Float64Array.from(frames) }
}
