/**
 * How large an object may be before it is read at all: whoever can write into the bucket must not be able to choose our memory.
 *
 * Larger ones end in ObjectTooLargeError. What a signed document gives the size of (packs, file list, source, pack table) is bound by that instead.
 */
const KiB = 1024
const MiB = 1024 * KiB

export const MAX_BYTES = {
  marker: 64 * KiB,
  keyring: 1 * MiB,
  /** 65,535 parents of 19 bytes, and the rest. */
  begin: 2 * MiB,
  /** As many parents, and what the server said of damaged pages. */
  record: 16 * MiB,
  /** PostgreSQL's own file has a line for each switch of timelines. */
  history: 1 * MiB,
} as const

/** A sealed segment: header, and for each frame its own header, padding and tag (sections 2.1 and 2.3). What compresses badly is stored raw. */
export function maxWalBytes(segmentBytes: number): number {
  const frames = Math.ceil(segmentBytes / MiB) + 1
  return 160 + segmentBytes + frames * (12 + 16 + 32)
}
