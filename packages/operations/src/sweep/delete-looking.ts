/**
 * Deletes in requests, each with a look of its own just before it. The only place that calls a store's `delete`.
 *
 * A copy may take up an old folder at any moment, and says so by a begin object. So a request goes out within a minute of its look, by the
 * store's clock and by this host's, or not at all; it is cut off when that minute is over; and it is never repeated: docs/repository-format.md, section 12.
 */
import { type Clock, OperationalError, throwIfAborted } from '@tidemark/kernel'
import { type ObjectEntry, type ObjectStore, StoreUnavailableError } from '@tidemark/storage'

/** Objects of one request: what a second look can save is at most this much. */
export const REQUEST_OBJECTS = 1000
/** How old a look may become before its request has been answered. */
const LOOK_MS = 60_000
/** Requests in a row that may fail. */
const TRIES = 5
const PAUSE_MS = 2_000

export interface Look {
  /** What tells whether somebody lives there, beside the objects themselves. */
  readonly signs: readonly ObjectEntry[]
  /** What is to go, in order: a request takes the first of them. None ends the work. */
  readonly doomed: readonly ObjectEntry[]
}

export interface DeleteLookingOptions {
  /** Such an object means that somebody lives there: nothing more is deleted. */
  readonly young: (entry: ObjectEntry) => boolean
  readonly clock: Clock
  readonly signal: AbortSignal
}

export interface Deleted {
  readonly objects: number
  readonly bytes: number
  /** Why it ended early: somebody lives there; or the store still lists what it said was gone. */
  readonly stopped: 'young' | 'undecided' | undefined
}

/** @throws what a look throws; what the last of five requests in a row failed with. What was deleted by then is gone. */
export async function deleteLooking(
  store: ObjectStore,
  { young, clock, signal }: DeleteLookingOptions,
  look: () => Promise<Look>,
): Promise<Deleted> {
  let objects = 0
  let bytes = 0
  let atOnce = REQUEST_OBJECTS
  let gone: ReadonlySet<string> = new Set()
  for (let tries = 1; ; tries += 1) {
    throwIfAborted(signal, 'the sweep')
    const lookedMs = clock.monotonicMs()
    const from = await store.storeTime(signal)
    const { signs, doomed } = await look()
    const batch = doomed.slice(0, atOnce)
    if (signs.some(young) || doomed.some(young)) return { objects, bytes, stopped: 'young' }
    if (batch.some(({ name }) => gone.has(name))) return { objects, bytes, stopped: 'undecided' }
    if (batch.length === 0) return { objects, bytes, stopped: undefined }
    const tookMs = Math.max((await store.storeTime(signal)).getTime() - from.getTime(), clock.monotonicMs() - lookedMs)
    const failure = await deleteOnce(store, batch, LOOK_MS - tookMs, { clock, signal })
    if (failure === undefined) {
      gone = new Set(batch.map(({ name }) => name))
      objects += batch.length
      for (const { size } of batch) bytes += size
      tries = 0
      continue
    }
    if (tries === TRIES) throw failure
    // A store that needs longer than its minute gets less to do.
    atOnce = Math.max(1, Math.ceil(atOnce / 4))
    await clock.sleep(PAUSE_MS * 2 ** tries, signal)
  }
}

/** @returns why it is to be tried again, after another look. @throws what another try cannot help. */
async function deleteOnce(
  store: ObjectStore,
  batch: readonly ObjectEntry[],
  withinMs: number,
  { clock, signal }: { readonly clock: Clock; readonly signal: AbortSignal },
): Promise<OperationalError | undefined> {
  const late = new StoreUnavailableError(`deleting ${batch.length} objects`, store.url, {
    hint: 'the store needs more than a minute from a listing to the end of a delete: see why it is slow',
    facts: { withinMs: LOOK_MS },
  })
  if (withinMs <= 0) return late
  const settled = new AbortController()
  const cut = new AbortController()
  void clock.sleep(withinMs, settled.signal).then(
    () => cut.abort(late),
    () => {},
  )
  try {
    const names = batch.map(({ name }) => name)
    await store.delete(names, AbortSignal.any([signal, cut.signal]))
    return undefined
  } catch (error) {
    if (signal.aborted || !(error instanceof OperationalError)) throw error
    if (cut.signal.aborted) return late
    if (error.retry !== 'backoff') throw error
    return error
  } finally {
    settled.abort()
  }
}
