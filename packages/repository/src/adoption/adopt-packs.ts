/**
 * Takes over the packs that dead attempts of the same operation left behind.
 *
 * Nobody vouches for them, so each is read whole, once, and every frame opened; then each repository of the run has to hold these very bytes,
 * and is given them where it has none. What any repository holds otherwise is not adopted. So a backup never has a pack that one of
 * its repositories lacks, and a failing optional repository is dropped here as anywhere else.
 */
import type { Keyring } from '@tidemark/crypto'
import { type Logger, OperationalError, ownArrayBuffer, throwIfAborted } from '@tidemark/kernel'
import { ThreadPool } from '@tidemark/kernel/threads'
import { DocumentDamagedError, StoredOtherwiseError } from '../errors.ts'
import { type ClusterLayout, packName } from '../layout.ts'
import { AdoptedFrames, MAX_ADOPTED_FRAMES } from '../packs/adopted-frames.ts'
import { PackList, packOrdinal } from '../records/pack-list.ts'
import { putProven, readBack } from '../set/read-back.ts'
import type { Repository } from '../set/repository.ts'
import type { SetWriter } from '../set/set-writer.ts'
import { type AdoptionThreadData, FRAME_ENTRY_BYTES, type PackToProve, type ProvenPack } from './adoption-thread.ts'
import { packsOfAttempt } from './dead-attempts.ts'

/** Larger ones were written under other settings; reading them whole would break the memory bound. */
const SPARE_BYTES = 4 * 1_048_576

export interface AdoptDeps {
  readonly writer: SetWriter
  readonly layout: ClusterLayout
  readonly keyring: Keyring
  /** A pack is closed once it has this many bytes. */
  readonly packBytes: number
  readonly logger: Logger
  readonly signal: AbortSignal
}

export interface Adopted {
  readonly packs: PackList
  readonly frames: AdoptedFrames
}

type AdoptionThread = ThreadPool<PackToProve, ProvenPack>

/** @param attempts ids, named as parents in one's own begin objects by now. @throws {RequiredRepositoryError} */
export async function adoptPacks(attempts: readonly string[], deps: AdoptDeps): Promise<Adopted> {
  const packs = new PackList()
  const frames = AdoptedFrames.withRoomFor(MAX_ADOPTED_FRAMES)
  const { writeKey: dataKey, digestKey } = deps.keyring
  const data: AdoptionThreadData = { dataKey, digestKey }
  await using thread: AdoptionThread = new ThreadPool(new URL('./adoption-thread.ts', import.meta.url), data, 1)
  for (const backupId of attempts) {
    const held = await whatIsHeld(backupId, deps)
    const ordinals = [...new Set([...held.values()].flatMap((sizes) => [...sizes.keys()]))].toSorted((a, b) => a - b)
    for (const ordinal of ordinals) {
      const proven = await adoptPack(backupId, ordinal, held, thread, deps)
      if (proven === undefined) continue
      const number = packs.reserve()
      const { sha256, salt, stored } = proven
      packs.set(number, { name: packName(ordinal), bytes: stored.byteLength, sha256, salt, backup: backupId })
      if (!addFrames(frames, proven.frames, number)) return { packs, frames }
    }
  }
  return { packs, frames }
}

function addFrames(frames: AdoptedFrames, entries: Uint8Array, pack: number): boolean {
  const view = new DataView(entries.buffer, entries.byteOffset, entries.byteLength)
  for (let at = 0; at < entries.length; at += FRAME_ENTRY_BYTES) {
    const digest = entries.subarray(at, at + 16)
    if (!frames.add(digest, view.getUint32(at + 16), pack, at / FRAME_ENTRY_BYTES)) return false
  }
  return true
}

/** By repository: sizes of the attempt's packs by ordinal. Empty where one of the repositories may be sweeping them. */
async function whatIsHeld(backupId: string, deps: AdoptDeps): Promise<Map<string, Map<number, number>>> {
  const held = new Map<string, Map<number, number>>()
  let swept = false
  await deps.writer.each(async (repository, signal) => {
    const sizes = await packsOfAttempt(repository, deps.layout, backupId, packOrdinal, signal)
    if (sizes === undefined) swept = true
    else held.set(repository.name, sizes)
  }, deps.signal)
  return swept ? new Map() : held
}

async function adoptPack(
  backupId: string,
  ordinal: number,
  held: ReadonlyMap<string, ReadonlyMap<number, number>>,
  thread: AdoptionThread,
  deps: AdoptDeps,
): Promise<ProvenPack | undefined> {
  const { writer, layout, logger, signal } = deps
  const name = layout.base(backupId) + packName(ordinal)
  const sizeIn = ({ name: repository }: Repository): number | undefined => held.get(repository)?.get(ordinal)
  const source = writer.active.find((repository) => sizeIn(repository) !== undefined)
  const listedBytes = source === undefined ? 0 : (sizeIn(source) ?? 0)
  if (source === undefined || listedBytes > deps.packBytes + SPARE_BYTES) return undefined
  // A size that differs would be met again by the comparison before the record, attempt after attempt.
  const differs = writer.active.some((repository) => (sizeIn(repository) ?? listedBytes) !== listedBytes)
  if (differs) {
    logger.warn({ backupId, ordinal }, 'pack of a dead attempt not adopted: repositories hold it in different sizes')
    return undefined
  }
  let proven: ProvenPack
  try {
    const bytes = await source.store.get(name, { signal, maxBytes: listedBytes })
    const what = `${packName(ordinal)} of attempt ${backupId} in ${source.name}`
    const stored = ownArrayBuffer(bytes)
    proven = await thread.call({ stored, backupId, ordinal, what }, [stored])
    throwIfAborted(signal, 'adopting packs')
    if (proven.stored.byteLength !== listedBytes)
      throw new DocumentDamagedError(
        what,
        `it has ${proven.stored.byteLength} bytes and was listed with ${listedBytes}`,
      )
  } catch (error) {
    if (signal.aborted || !(error instanceof OperationalError)) throw error
    if (error.retry === 'backoff') {
      // The repository fails, not the pack: that drops it or ends the attempt, as everywhere.
      await writer.each((repository) => (repository === source ? Promise.reject(error) : Promise.resolve()), signal)
      return adoptPack(backupId, ordinal, held, thread, deps)
    }
    logger.warn({ backupId, ordinal, code: error.code, reason: error.message }, 'pack of a dead attempt not adopted')
    return undefined
  }
  let otherwise = false
  await writer.each(async (repository, signal) => {
    if (repository === source) return
    if (sizeIn(repository) === undefined)
      return putProven(repository, name, new Uint8Array(proven.stored), proven.sha256, signal)
    await readBack(repository, name, proven.stored.byteLength, proven.sha256, signal).catch((error: unknown) => {
      if (!(error instanceof StoredOtherwiseError)) throw error
      otherwise = true
    })
  }, signal)
  return otherwise ? undefined : proven
}
