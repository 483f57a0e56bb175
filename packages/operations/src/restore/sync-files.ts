/**
 * Makes files durable as soon as everything in them is written, beside the copying, so that the disk is never idle and little is left for the end.
 *
 * A file is done once all packs up to its last one are. Every file is synced: a comparison that found it whole says nothing of the disk.
 */
import { type FileHandle, open, truncate } from 'node:fs/promises'
import { constants } from 'node:fs'
import { throwIfAborted } from '@tidemark/kernel'
import { TargetWriteError } from '../errors.ts'
import { type RestoreSpool, openExtents, openPaths } from './spool/restore-spool.ts'
import { type TargetPaths, absolutePath, pathBytes } from './target-paths.ts'

const AT_ONCE = 16

export class FileSync {
  readonly #spool: RestoreSpool
  readonly #target: TargetPaths
  readonly #signal: AbortSignal
  readonly #packs: number
  readonly #done: Uint8Array
  #reached = 0
  #wake = Promise.withResolvers<void>()
  #stopped = false
  synced = 0

  constructor(spool: RestoreSpool, packs: number, target: TargetPaths, signal: AbortSignal) {
    this.#spool = spool
    this.#packs = packs
    this.#target = target
    this.#signal = signal
    this.#done = new Uint8Array(packs)
  }

  packDone(pack: number): void {
    this.#done[pack] = 1
    while (this.#done[this.#reached] === 1) this.#reached += 1
    this.#notify()
  }

  /** Ends `run` early: the copy has failed. */
  stop(): void {
    this.#stopped = true
    this.#notify()
  }

  /** Resolves once every file is synced, or it was stopped. @throws {TargetWriteError} */
  async run(): Promise<void> {
    using paths = openPaths(this.#spool.place)
    const files = this.#finished()
    let failure: { error: unknown } | undefined
    const worker = async (): Promise<void> => {
      for (;;) {
        const next = await files.next()
        if (next.done === true || failure !== undefined) return
        try {
          throwIfAborted(this.#signal, 'the restore')
          const { path, mode } = paths.get(next.value)
          await syncFile(absolutePath(this.#target, path), mode)
          this.synced += 1
        } catch (error) {
          failure ??= { error }
          this.stop()
        }
      }
    }
    await Promise.all(Array.from({ length: AT_ONCE }, worker))
    if (failure !== undefined) throw failure.error
  }

  async *#finished(): AsyncGenerator<number> {
    if (this.#packs === 0) for (let file = 0; file < this.#spool.files; file += 1) yield file
    using extents = openExtents(this.#spool.place)
    for (let pack = 0; pack < this.#packs; pack += 1) {
      while (pack >= this.#reached && !this.#stopped) await this.#wake.promise
      if (this.#stopped) return
      const { from, to } = this.#spool.rowsOf(pack)
      for (const { lastOfFile, file } of extents.read(from, to)) if (lastOfFile) yield file
    }
  }

  #notify(): void {
    this.#wake.resolve()
    this.#wake = Promise.withResolvers()
  }
}

/** Modes that keep even the owner from writing are set now. */
async function syncFile(path: string, mode: number): Promise<void> {
  try {
    await using handle: FileHandle = await open(pathBytes(path), constants.O_RDONLY | constants.O_NOFOLLOW)
    if ((mode & 0o600) !== 0o600) await handle.chmod(mode)
    await handle.sync().catch(async (error: unknown) => {
      // Its pages count as clean from now on, though the disk may have others: a restore that compares must not find them whole.
      await truncate(pathBytes(path), 0).catch(() => {})
      throw error
    })
  } catch (cause) {
    throw new TargetWriteError(path, cause)
  }
}
