import { type FileHandle, open } from 'node:fs/promises'

const BUFFER_BYTES = 262_144

/** A temporary file that is appended to through one buffer, and read by others once it is flushed. */
export class SpoolFile implements AsyncDisposable {
  readonly path: string
  readonly #handle: FileHandle
  readonly #buffer = Buffer.allocUnsafe(BUFFER_BYTES)
  #used = 0
  #flushed = 0

  private constructor(path: string, handle: FileHandle) {
    this.path = path
    this.#handle = handle
  }

  /** @throws when something of that name is there. */
  static async create(path: string): Promise<SpoolFile> {
    return new SpoolFile(path, await open(path, 'wx+', 0o600))
  }

  /** Bytes appended so far. */
  get length(): number {
    return this.#flushed + this.#used
  }

  /** `bytes` is copied. A promise where the buffer was full: wait for it before the next call. */
  append(bytes: Uint8Array): Promise<void> | undefined {
    if (this.#used + bytes.length > BUFFER_BYTES) return this.#appendFull(bytes)
    this.#buffer.set(bytes, this.#used)
    this.#used += bytes.length
    return undefined
  }

  async flush(): Promise<void> {
    const used = this.#used
    this.#used = 0
    await this.#write(this.#buffer.subarray(0, used))
  }

  /** Fills `into` from flushed bytes at `offset`; fewer at the end. */
  async read(into: Uint8Array, offset: number): Promise<number> {
    let filled = 0
    while (filled < into.length) {
      const { bytesRead } = await this.#handle.read(into, filled, into.length - filled, offset + filled)
      if (bytesRead === 0) break
      filled += bytesRead
    }
    return filled
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handle.close()
  }

  async #appendFull(bytes: Uint8Array): Promise<void> {
    await this.flush()
    if (bytes.length > BUFFER_BYTES) return this.#write(bytes)
    this.#buffer.set(bytes, 0)
    this.#used = bytes.length
  }

  async #write(bytes: Uint8Array): Promise<void> {
    let done = 0
    while (done < bytes.length) {
      const { bytesWritten } = await this.#handle.write(bytes, done, bytes.length - done, this.#flushed + done)
      done += bytesWritten
    }
    this.#flushed += bytes.length
  }
}
