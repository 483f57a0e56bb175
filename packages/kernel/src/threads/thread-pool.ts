/**
 * Worker threads that answer requests: CPU-bound work off the event loop, so that job locks, health checks and sockets stay alive.
 *
 * Callers bound the number of requests that wait. An error thrown by the thread's handler comes back as itself where it is an
 * OperationalError (as a RelayedError with its code and hint), and ends only that request.
 */
import { basename } from 'node:path'
import { Worker } from 'node:worker_threads'
import { type Problem, RelayedError } from '../errors.ts'
import { endThread } from './end-thread.ts'

type Settle = { resolve: (reply: unknown) => void; reject: (error: unknown) => void; thread: number }

export type ThreadAnswer =
  | { readonly ticket: number; readonly reply: unknown }
  | { readonly ticket: number; readonly problem: Problem; readonly stack: string | undefined }

export class ThreadPool<Request, Reply> implements AsyncDisposable {
  readonly size: number
  readonly #workers: Worker[]
  readonly #outstanding: number[]
  readonly #waiting = new Map<number, Settle>()
  #tickets = 0
  #disposing = false
  #failure: { error: unknown } | undefined

  /** @param module the thread's file, which calls serveThread with the file's name. @param data is cloned into each thread. */
  constructor(module: URL, data: object, size: number) {
    const name = basename(module.pathname).replace(/\.\w+$/, '')
    this.size = size
    this.#outstanding = Array.from({ length: size }, () => 0)
    this.#workers = Array.from({ length: size }, () => {
      const worker = new Worker(module, {
        workerData: { tidemark: name, data },
        name,
        // Large buffers lie outside of it; what is young and small need not have 48 MiB a thread to die in.
        resourceLimits: { maxYoungGenerationSizeMb: 8 },
      })
      worker.on('message', (answer: ThreadAnswer) => this.#receive(answer))
      worker.on('error', (error) => this.#fail(error))
      worker.on('exit', (code) => {
        if (!this.#disposing) this.#fail(new Error(`a worker thread ended by itself with code ${code}`))
      })
      return worker
    })
  }

  /** @param thread which one must do it; the least busy one if undefined. */
  call(request: Request, transfer: ArrayBuffer[] = [], thread = this.leastBusy()): Promise<Reply> {
    return new Promise<unknown>((resolve, reject) => {
      if (this.#failure !== undefined) return reject(this.#failure.error)
      this.#tickets += 1
      this.#waiting.set(this.#tickets, { resolve, reject, thread })
      this.#outstanding[thread] = (this.#outstanding[thread] ?? 0) + 1
      try {
        this.#workers[thread]?.postMessage({ ticket: this.#tickets, request }, transfer)
      } catch (error) {
        this.#waiting.delete(this.#tickets)
        this.#outstanding[thread] = (this.#outstanding[thread] ?? 1) - 1
        reject(error)
      }
    }) as Promise<Reply>
  }

  leastBusy(): number {
    return this.#outstanding.reduce((best, count, i) => (count < (this.#outstanding[best] ?? 0) ? i : best), 0)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposing = true
    await Promise.all(this.#workers.map((worker) => endThread(worker)))
    this.#fail(new Error('the thread pool was closed'))
  }

  #receive(answer: ThreadAnswer): void {
    const settle = this.#waiting.get(answer.ticket)
    if (settle === undefined) return
    this.#waiting.delete(answer.ticket)
    this.#outstanding[settle.thread] = (this.#outstanding[settle.thread] ?? 1) - 1
    if ('reply' in answer) return settle.resolve(answer.reply)
    const error =
      answer.problem.code === 'INTERNAL' ? new Error(answer.problem.message) : new RelayedError(answer.problem)
    if (answer.stack !== undefined && !(error instanceof RelayedError)) error.stack = answer.stack
    settle.reject(error)
  }

  #fail(error: unknown): void {
    this.#failure ??= { error }
    for (const { reject } of this.#waiting.values()) reject(error)
    this.#waiting.clear()
  }
}
