import type { Worker } from 'node:worker_threads'

/** A thread that gets this message closes its port, and so ends once it has done what came before. */
export const THREAD_STOP = 'stop'

const PATIENCE_MS = 10_000

/**
 * Ends a thread and resolves when it has ended, however it did; nothing happens to one that has ended already.
 *
 * It asks, and terminates only who does not answer: Node 24 aborts the whole process when a thread is terminated while zlib sets up
 * a stream ("close before init").
 */
export async function endThread(worker: Worker, patienceMs = PATIENCE_MS): Promise<void> {
  if (worker.threadId === -1) return
  const exited = new Promise<void>((resolve) => worker.once('exit', () => resolve()))
  worker.postMessage(THREAD_STOP, [])
  const patience = setTimeout(() => void worker.terminate(), patienceMs)
  await exited
  clearTimeout(patience)
}
