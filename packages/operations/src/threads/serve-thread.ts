import { parentPort, workerData } from 'node:worker_threads'
import { problemOf } from '@tidemark/kernel'
import type { ThreadAnswer } from './thread-pool.ts'

/** Takes the pool's data and returns the handler: one request in, one reply out, with what to transfer. */
export type PrepareThread<Data, Request, Reply> = (
  data: Data,
) => (request: Request) => { reply: Reply; transfer?: ArrayBuffer[] }

/**
 * The thread's side of a ThreadPool. Does nothing when the file is imported outside of a thread that a pool started.
 */
export function serveThread(prepare: PrepareThread<never, never, unknown>): void {
  const started = workerData as { tidemark?: string; data: never } | null
  const port = parentPort
  if (port === null || started?.tidemark !== 'thread') return
  const handle = prepare(started.data)
  port.on('message', ({ ticket, request }: { ticket: number; request: never }) => {
    try {
      const { reply, transfer } = handle(request)
      port.postMessage({ ticket, reply } satisfies ThreadAnswer, transfer ?? [])
    } catch (error) {
      const stack = error instanceof Error ? error.stack : undefined
      port.postMessage({ ticket, problem: problemOf(error), stack } satisfies ThreadAnswer)
    }
  })
}

/** Data keys as they cross into a thread. */
export interface ThreadKeys {
  readonly dataKeys: readonly { readonly id: string; readonly bytes: Uint8Array }[]
  readonly digestKey: Uint8Array
}
