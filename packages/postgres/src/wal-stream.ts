import { abortError, formatLsn, lsn, segmentNumber, segmentStart, type Lsn } from '@tidemark/kernel'
import type { DatabaseError } from 'pg'
import { ServerShutdownError, SyncStandbyRefusedError, WalStalledError, WalStreamEndedError } from './errors.ts'
import { exchange, type ServerMessage } from './exchange.ts'
import type { ReplicationConnection, SystemIdentity } from './replication-connection.ts'
import { SegmentAssembler, type WalSegment } from './segment-assembler.ts'
import { countsAsSyncStandby, readSyncStandbyNames } from './sync-standby-guard.ts'
import { readTimelineHistory, type TimelineHistoryFile } from './timeline-history.ts'
import { decodeWalMessage, encodeStandbyStatus } from './wal-messages.ts'

export interface WalStreamOptions {
  /** Of the server that was checked before: a login that reaches another one, or a standby of it, is refused. */
  readonly systemId?: string | undefined
  /** Silence allowed; walsenders send a keepalive every wal_sender_timeout / 2. 60 s. */
  readonly idleTimeoutMs?: number | undefined
  /** How long finishAt waits without any new WAL before it gives up. 30 s. */
  readonly stallTimeoutMs?: number | undefined
  /** How often we report without being asked, and ask for an answer. 10 s, and often enough that an idle server is not taken for a silent one. */
  readonly statusIntervalMs?: number | undefined
  /** How often synchronous_standby_names is read again, over SQL. 60 s. */
  readonly syncCheckIntervalMs?: number | undefined
}

export interface WalStreamStart {
  /** Start of a segment; segmentStart(segmentNumber(startLsn)) of the base backup. */
  readonly fromLsn: Lsn
  readonly timeline: number
  /**
   * Gets each whole segment, one at a time, in order. While its promise is pending at most one more
   * segment is buffered, then the socket is paused. `bytes` may be read until the promise settles,
   * or transferred to a worker. Resolving confirms: the server may drop its copy. Rejecting ends
   * the stream with that error.
   */
  readonly onSegment: (segment: WalSegment) => void | Promise<void>
}

export interface WalStreamEnd {
  /** End of the last confirmed segment. */
  readonly confirmedLsn: Lsn
  readonly segments: number
}

/** @internal what openWalStream has read and made. */
export interface OpenedSlot {
  readonly slotName: string
  readonly applicationName: string
  readonly segmentBytes: number
  readonly identity: SystemIdentity
  readonly synchronousStandbyNames: string
}

/**
 * The WAL of a base backup's duration, streamed beside it.
 *
 * States: open (the temporary slot exists and holds WAL back from now on) → streaming (`start`) →
 * finished (`finishAt` resolved, or `finished` rejected) → closed (disposed: the slot is gone, as it
 * lives with the connection). Order of use: open, begin the base backup, start in its onStart,
 * finishAt its stopLsn, dispose.
 */
export class WalStream implements AsyncDisposable {
  readonly slotName: string
  /** As the server knows it: cut at 63 bytes, not ASCII replaced. */
  readonly applicationName: string
  readonly segmentBytes: number
  readonly identity: SystemIdentity
  readonly #connection: ReplicationConnection
  readonly #syncNames: string
  readonly #options: WalStreamOptions
  readonly #signal: AbortSignal
  readonly #finished = Promise.withResolvers<WalStreamEnd>()
  #assembler: SegmentAssembler | undefined
  #withholdFlush = false
  #timeline = 0
  #segments = 0
  #goal: Lsn | undefined
  #lastProgressMs = 0
  #streaming = false
  #ending = false
  #over = false
  #nextTimeline: string | undefined
  #serverError: DatabaseError | undefined
  #timers: NodeJS.Timeout[] = []

  /** @internal use openWalStream */
  constructor(connection: ReplicationConnection, server: OpenedSlot, options: WalStreamOptions, signal: AbortSignal) {
    this.#connection = connection
    this.slotName = server.slotName
    this.applicationName = server.applicationName
    this.segmentBytes = server.segmentBytes
    this.identity = server.identity
    this.#syncNames = server.synchronousStandbyNames
    this.#options = options
    this.#signal = signal
    // finishAt() and the `finished` getter hand the rejection on; an unobserved one must not end the process.
    this.#finished.promise.catch(() => {})
  }

  /** Settles once: resolves after finishAt, rejects as soon as the stream breaks. Watch it during the backup. */
  get finished(): Promise<WalStreamEnd> {
    return this.#finished.promise
  }

  /** The history file of `timeline` (> 1; timeline 1 has none). Only before `start`: the connection is busy afterwards. */
  async timelineHistory(timeline: number): Promise<TimelineHistoryFile> {
    return await readTimelineHistory(this.#connection, timeline)
  }

  /**
   * Starts streaming and resolves once the server has agreed to send.
   *
   * @throws {SyncStandbyRefusedError} commits of the source would wait for this stream.
   * What goes wrong later, {WalRemovedError} included, rejects `finished`.
   */
  async start(start: WalStreamStart): Promise<void> {
    if (this.#assembler !== undefined) throw new Error('start() was called before')
    if (start.fromLsn % BigInt(this.segmentBytes) !== 0n) throw new RangeError('fromLsn is not the start of a segment')
    const { applicationName } = this
    if (countsAsSyncStandby(applicationName, this.#syncNames)) {
      const refused = new SyncStandbyRefusedError({ applicationName, synchronousStandbyNames: this.#syncNames })
      this.#fail(refused)
      throw refused
    }
    this.#timeline = start.timeline
    this.#assembler = new SegmentAssembler({
      from: start.fromLsn,
      timeline: start.timeline,
      segmentBytes: this.segmentBytes,
      consume: async (segment) => {
        await start.onSegment(segment)
        this.#segments += 1
      },
      onConsumed: (failure) => {
        if (failure !== undefined) this.#fail(failure.error)
        else this.#endIfReached()
      },
    })
    const streaming = Promise.withResolvers<void>()
    void this.#run(
      `START_REPLICATION SLOT "${this.slotName}" PHYSICAL ${formatLsn(start.fromLsn)} TIMELINE ${start.timeline}`,
      streaming.resolve,
    )
    await Promise.race([streaming.promise, this.#finished.promise])
    this.#reportStatus()
  }

  /**
   * Resolves once the segment holding `stopLsn - 1` is complete and confirmed. Nothing needs to be
   * written for that: the end of a base backup switches segments on the primary.
   *
   * @throws {WalStalledError} no new WAL for stallTimeoutMs while that segment is still open.
   */
  async finishAt(stopLsn: Lsn): Promise<WalStreamEnd> {
    if (this.#assembler === undefined) throw new Error('finishAt() was called before start()')
    const lastSegment = segmentNumber(lsn(stopLsn - 1n), this.segmentBytes)
    this.#goal = segmentStart(lastSegment + 1n, this.segmentBytes)
    this.#lastProgressMs = performance.now()
    this.#endIfReached()
    return await this.#finished.promise
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#fail(abortError(this.#signal.aborted ? this.#signal : AbortSignal.abort(), 'the WAL stream'))
    await this.#connection[Symbol.asyncDispose]()
  }

  async #run(command: string, onStreaming: () => void): Promise<void> {
    const { idleTimeoutMs = 60_000, syncCheckIntervalMs = 60_000 } = this.#options
    const { statusIntervalMs = Math.min(10_000, idleTimeoutMs / 4) } = this.#options
    this.#timers.push(setInterval(() => this.#checkStall(), 500))
    this.#timers.push(setInterval(() => this.#reportStatus({ replyWanted: true }), statusIntervalMs))
    this.#timers.push(setInterval(() => void this.#checkSyncStandby(), syncCheckIntervalMs))
    try {
      await exchange(this.#connection, command, (message) => this.#take(message, onStreaming), {
        during: 'START_REPLICATION',
        firstDataTimeoutMs: idleTimeoutMs,
        idleTimeoutMs,
      })
      if (this.#serverError !== undefined) throw this.#connection.translate(this.#serverError, 'START_REPLICATION')
      await this.#assembler?.settle()
      const received = this.#assembler?.consumed ?? lsn(0n)
      if (!this.#ending) {
        const ended = { timeline: this.#timeline, received: formatLsn(received) }
        throw new WalStreamEndedError({ ...ended, ...(this.#nextTimeline ? { nextTimeline: this.#nextTimeline } : {}) })
      }
      this.#over = true
      this.#stopTimers()
      this.#finished.resolve({ confirmedLsn: received, segments: this.#segments })
    } catch (error) {
      this.#fail(error)
    }
  }

  #take(message: ServerMessage, onStreaming: () => void): void | Promise<void> {
    switch (message.kind) {
      case 'copy-start':
        this.#streaming = true
        return onStreaming()
      case 'copy-data':
        return this.#takeData(message.chunk)
      case 'copy-done':
        // The server's own end (promotion, shutdown) must be answered, or it waits for us.
        if (!this.#ending) this.#connection.wire.endCopyFrom()
        this.#streaming = false
        return undefined
      case 'row':
        this.#nextTimeline = message.values[0] ?? undefined
        return undefined
      case 'error':
        this.#serverError = message.error
        return undefined
      case 'complete':
        // Without CopyDone before it: WalSndDone, the server has sent everything and shuts down.
        if (this.#streaming) {
          const { host, port } = this.#connection.target
          throw new ServerShutdownError({ host, port })
        }
        return undefined
      case 'ready':
        return undefined
      default:
        return message satisfies never
    }
  }

  #takeData(chunk: Buffer): void | Promise<void> {
    const assembler = this.#assembler
    if (assembler === undefined || this.#ending) return undefined
    const message = decodeWalMessage(chunk)
    if (message.kind === 'keepalive') {
      // Asked for when the server shuts down (WalSndDone, walsender.c): it then waits until our flush
      // position reaches its last byte, which an open segment never does, unless none is claimed.
      if (message.replyRequested) this.#reportStatus({ claimFlush: false })
      return undefined
    }
    this.#lastProgressMs = performance.now()
    return assembler.take(message.startLsn, message.bytes)
  }

  /** A reload may name us in mid-stream. Claiming no flush position takes us off the list; WAL is then kept until the end. */
  async #checkSyncStandby(): Promise<void> {
    try {
      const names = await readSyncStandbyNames(this.#connection.target, this.#signal)
      const named = countsAsSyncStandby(this.applicationName, names)
      if (named === this.#withholdFlush) return
      this.#withholdFlush = named
      this.#reportStatus()
    } catch {
      // Not known: the next look is a minute away, and the stream itself notices a lost server.
    }
  }

  /** Has WAL stopped coming although finishAt() waits for more? */
  #checkStall(): void {
    const assembler = this.#assembler
    if (assembler === undefined || this.#goal === undefined) return
    const { stallTimeoutMs = 30_000 } = this.#options
    const waitedMs = Math.round(performance.now() - this.#lastProgressMs)
    if (assembler.received < this.#goal && waitedMs > stallTimeoutMs) {
      const facts = { waitedMs, wanted: formatLsn(this.#goal), received: formatLsn(assembler.received) }
      this.#fail(new WalStalledError(facts))
    }
  }

  #endIfReached(): void {
    const assembler = this.#assembler
    if (this.#ending || assembler === undefined || this.#goal === undefined || assembler.consumed < this.#goal) return
    this.#reportStatus()
    this.#ending = true
    this.#connection.wire.endCopyFrom()
  }

  #reportStatus({ claimFlush = !this.#withholdFlush, replyWanted = false } = {}): void {
    const assembler = this.#assembler
    if (assembler === undefined || !this.#streaming || this.#ending) return
    const flushedLsn = claimFlush ? assembler.consumed : lsn(0n)
    const status = { writtenLsn: assembler.received, flushedLsn, replyWanted }
    this.#connection.wire.sendCopyFromChunk(encodeStandbyStatus(status, Date.now()))
  }

  #fail(error: unknown): void {
    if (this.#over) return
    this.#over = true
    this.#stopTimers()
    const translated = this.#connection.translate(error, 'START_REPLICATION')
    this.#finished.reject(translated)
    if (this.#assembler !== undefined) this.#connection.cut(translated)
  }

  #stopTimers(): void {
    for (const timer of this.#timers.splice(0)) clearInterval(timer)
  }
}
