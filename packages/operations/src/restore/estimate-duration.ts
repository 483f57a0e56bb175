/** How long a restore will take, as far as can be told beforehand. */
import type { Clock } from '@tidemark/kernel'
import { ClusterLayout } from '@tidemark/repository'
import { MiB } from '@tidemark/kernel'
import type { BackupReader } from './fetch-pack.ts'

export interface Estimate {
  readonly seconds: number
  /** For people: what it was made of. */
  readonly basis: string
}

const SAMPLE_BYTES = 16 * MiB
/** Too few bytes say more of latency than of rate. */
const LEAST_SAMPLE_BYTES = MiB
/** Plaintext bytes that one thread opens and writes in a second, on a core of 2022; see docs/measurements.md. */
const THREAD_BYTES_PER_SECOND = 200 * MiB
const SECONDS_PER_FILE = 0.0002

/**
 * Fetching is measured, on the first bytes of the largest pack; opening and writing go by a fixed rate for each thread. They overlap, so the slower one counts.
 *
 * @throws {ObjectNotFoundError} @throws {StoreUnavailableError}
 */
export async function estimateDuration(
  { record, table, sources }: BackupReader,
  fetchBytes: number,
  { clock, threads, signal }: { clock: Clock; threads: number; signal: AbortSignal },
): Promise<Estimate> {
  const { bytes: plainBytes, files } = record.totals
  const writing = plainBytes / (threads * THREAD_BYTES_PER_SECOND)
  const making = files * SECONDS_PER_FILE
  const byRate = `${threads} threads at ${THREAD_BYTES_PER_SECOND / MiB} MiB/s each, ${SECONDS_PER_FILE * 1000} ms a file`
  const [source] = sources
  const { largest } = table.packs
  if (source === undefined || largest === undefined || largest.bytes < LEAST_SAMPLE_BYTES)
    return { seconds: Math.ceil(writing + making), basis: `assumed: ${byRate}` }
  const name = new ClusterLayout(record.cluster, record.systemId).base(largest.backup ?? record.backupId) + largest.name
  const length = Math.min(SAMPLE_BYTES, largest.bytes)
  const beganMs = clock.monotonicMs()
  await source.store.get(name, { signal, range: { offset: 0, length }, maxBytes: length })
  const rate = length / Math.max(0.001, (clock.monotonicMs() - beganMs) / 1000)
  return {
    seconds: Math.ceil(Math.max(fetchBytes / rate, writing) + making),
    basis: `measured: ${source.name} gives ${Math.round(rate / MiB)} MiB/s; assumed: ${byRate}`,
  }
}
