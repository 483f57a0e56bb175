/**
 * A socket that reads into two buffers of its own, in turn, and hands on whole protocol messages.
 *
 * Node allocates 64 KiB for every read, and pg's parser copies nearly each of them once more, because few reads end where a message does: at
 * gigabytes, the collector and fresh memory cost more than the protocol. Here nothing is allocated per read, and only the beginning of
 * a message that has not come whole is moved, to the front of the other buffer. Not for TLS, whose bytes arrive by another way.
 */
import { Socket } from 'node:net'

/** Several CopyData messages (32 KiB of archive, 128 KiB of WAL) fit; two of them stay in a core's cache. */
const BUFFER_BYTES = 256 * 1024
/** Type byte and length; the length counts itself, not the type (PostgreSQL documentation, "Message Formats"). */
const HEAD_BYTES = 5
const LENGTH_OFFSET = 1

/**
 * Cuts what is read into runs of whole messages.
 *
 * A run is a view that stays untouched until the next `take`, also while bytes are read into `space`: whoever pauses the
 * socket before he is done with a run, and resumes it afterwards, always sees its bytes.
 */
export class MessageBuffers {
  readonly #onMessages: (run: Buffer) => void
  #current: Buffer
  #other: Buffer
  /** Bytes of an unfinished message at the front of #current. */
  #kept = 0
  /** Bytes still to come of a message that is longer than a buffer; its beginning has been handed on. */
  #owed = 0

  constructor(onMessages: (run: Buffer) => void, bufferBytes = BUFFER_BYTES) {
    this.#onMessages = onMessages
    this.#current = Buffer.allocUnsafeSlow(bufferBytes)
    this.#other = Buffer.allocUnsafeSlow(bufferBytes)
  }

  /** Where the next read goes: behind what is kept. Never empty. */
  get space(): Buffer {
    return this.#current.subarray(this.#kept)
  }

  /** `bytes` were read into `space`. */
  take(bytes: number): void {
    const filled = this.#kept + bytes
    const from = this.#current
    const end = this.#endOfWholeMessages(filled)
    this.#kept = filled - end
    from.copy(this.#other, 0, end, filled)
    this.#current = this.#other
    this.#other = from
    if (end > 0) this.#onMessages(from.subarray(0, end))
    if (this.#kept === this.#current.length) this.#handOnBeginning()
  }

  #endOfWholeMessages(filled: number): number {
    let end = Math.min(this.#owed, filled)
    this.#owed -= end
    while (end + HEAD_BYTES <= filled) {
      const next = end + LENGTH_OFFSET + this.#current.readUInt32BE(end + LENGTH_OFFSET)
      if (next > filled) break
      end = next
    }
    return end
  }

  /** The parser keeps what it gets of an unfinished message, so it gets a copy. */
  #handOnBeginning(): void {
    const beginning = Buffer.from(this.#current)
    this.#owed = LENGTH_OFFSET + beginning.readUInt32BE(LENGTH_OFFSET) - beginning.length
    this.#kept = 0
    this.#onMessages(beginning)
  }
}

/** An unconnected socket for pg's Client: it emits `data` with whole messages. */
export function createMessageSocket(): Socket {
  const buffers = new MessageBuffers((run) => socket.emit('data', run))
  const socket: Socket = new Socket({
    onread: {
      // Asked for before the first read and after each.
      buffer: () => buffers.space,
      callback: (bytes) => {
        buffers.take(bytes)
        return true
      },
    },
  })
  return socket
}
