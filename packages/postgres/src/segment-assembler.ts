import { formatLsn, lsn, segmentNumber, segmentStart, type Lsn } from '@tidemark/kernel'
import { StreamMalformedError } from './errors.ts'

export interface WalSegment {
  readonly timeline: number
  /** Counted from 0 at LSN 0/0; walFileName(timeline, segment, bytes.length) names it. */
  readonly segment: bigint
  readonly startLsn: Lsn
  /** The whole segment, wal_segment_size bytes, in an ArrayBuffer of its own: it may be transferred. */
  readonly bytes: Buffer
}

/**
 * Cuts a stream of WAL into whole segments, with two buffers: one being filled, one with the consumer.
 *
 * The consumer may use (or transfer) `bytes` until its promise settles; a buffer that was not
 * transferred is filled again afterwards.
 */
export class SegmentAssembler {
  readonly #timeline: number
  readonly #segmentBytes: number
  readonly #consume: (segment: WalSegment) => void | Promise<void>
  readonly #onConsumed: (failure: { error: unknown } | undefined) => void
  readonly #spare: Buffer[] = []
  #filling: Buffer | undefined
  #received: Lsn
  #consumed: Lsn
  #consuming: Promise<void> | undefined

  constructor(options: {
    from: Lsn
    timeline: number
    segmentBytes: number
    consume: (segment: WalSegment) => void | Promise<void>
    /** After every segment: confirmed, or failed with the consumer's error. */
    onConsumed: (failure: { error: unknown } | undefined) => void
  }) {
    this.#timeline = options.timeline
    this.#segmentBytes = options.segmentBytes
    this.#consume = options.consume
    this.#onConsumed = options.onConsumed
    this.#received = options.from
    this.#consumed = options.from
  }

  /** End of what has arrived. */
  get received(): Lsn {
    return this.#received
  }

  /** End of the last segment that the consumer has confirmed, without a hole before it. */
  get consumed(): Lsn {
    return this.#consumed
  }

  /** A returned promise means: both buffers are in use, do not send more before it resolves. */
  take(startLsn: Lsn, bytes: Buffer): void | Promise<void> {
    if (startLsn !== this.#received) {
      const facts = { expected: formatLsn(this.#received), got: formatLsn(startLsn) }
      throw new StreamMalformedError('WAL out of order', facts)
    }
    return this.#copy(bytes)
  }

  #copy(bytes: Buffer): void | Promise<void> {
    let at = 0
    while (at < bytes.length) {
      this.#filling ??= this.#spare.pop() ?? Buffer.allocUnsafeSlow(this.#segmentBytes)
      const offset = Number(this.#received % BigInt(this.#segmentBytes))
      const taken = bytes.copy(this.#filling, offset, at)
      at += taken
      this.#received = lsn(this.#received + BigInt(taken))
      if (offset + taken < this.#segmentBytes) return undefined
      const previous = this.#consuming
      if (previous === undefined) this.#handOver()
      else {
        const rest = bytes.subarray(at)
        return previous.then(() => {
          this.#handOver()
          return this.#copy(rest)
        })
      }
    }
    return undefined
  }

  /** Resolves when the consumer is done with everything handed to it; rejects with its error. */
  async settle(): Promise<void> {
    await this.#consuming
  }

  #handOver(): void {
    const bytes = this.#filling
    if (bytes === undefined) throw new Error('no segment to hand over')
    this.#filling = undefined
    const end = this.#received
    const segment = segmentNumber(end, this.#segmentBytes) - 1n
    const startLsn = segmentStart(segment, this.#segmentBytes)
    const work = async (): Promise<void> => {
      await this.#consume({ timeline: this.#timeline, segment, startLsn, bytes })
      this.#consumed = end
      // A transferred buffer is detached and has length 0.
      if (bytes.byteLength === this.#segmentBytes) this.#spare.push(bytes)
      this.#consuming = undefined
    }
    this.#consuming = work()
    this.#consuming.then(
      () => this.#onConsumed(undefined),
      (error: unknown) => this.#onConsumed({ error }),
    )
  }
}
