/**
 * The buffers that packs are fetched into. They go to a thread and come back; one that was lost on the way is replaced.
 *
 * Whoever takes more than there are is a bug: the number of tasks is the number of buffers.
 */
export class LentBuffers {
  readonly #bytes: number
  readonly #free: ArrayBuffer[] = []
  #left: number

  constructor(count: number, bytes: number) {
    this.#left = count
    this.#bytes = bytes
  }

  take(): ArrayBuffer {
    const free = this.#free.pop()
    if (free !== undefined) return free
    if (this.#left === 0) throw new RangeError('all buffers are lent')
    this.#left -= 1
    return new ArrayBuffer(this.#bytes)
  }

  giveBack(buffer: ArrayBuffer): void {
    this.#free.push(buffer)
  }

  /** A thread or a call that failed still has it: another one may be made in its place. */
  giveUp(): void {
    this.#left += 1
  }
}
