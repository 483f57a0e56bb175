import { parentPort, workerData } from 'node:worker_threads'
import { problemOf } from '../errors.ts'
import { THREAD_STOP } from './end-thread.ts'
import type { ThreadAnswer } from './thread-pool.ts'

/** Takes the pool's data and returns the handler: one request in, one reply out, with what to transfer. */
export type PrepareThread<Data, Request, Reply> = (
  data: Data,
) => (request: Request) => { reply: Reply; transfer?: ArrayBuffer[] }

/**
 * The thread's side of a ThreadPool. Does nothing where the file is only imported: outside of a thread, or in another module's thread.
 *
 * @param name of the file, without its ending; a bundle cannot tell by address which module was started.
 */
export function serveThread(name: string, prepare: PrepareThread<never, never, unknown>): void {
  const started = workerData as { tidemark?: string; data: never } | null
  const port = parentPort
  if (port === null || started?.tidemark !== name) return
  const handle = prepare(started.data)
  port.on('message', (message: { ticket: number; request: never } | typeof THREAD_STOP) => {
    if (message === THREAD_STOP) return port.close()
    const { ticket, request } = message
    try {
      const { reply, transfer } = handle(request)
      port.postMessage({ ticket, reply } satisfies ThreadAnswer, transfer ?? [])
    } catch (error) {
      const stack = error instanceof Error ? error.stack : undefined
      port.postMessage({ ticket, problem: problemOf(error), stack } satisfies ThreadAnswer)
    }
  })
}
