export { THREAD_STOP, endThread } from './end-thread.ts'
export { serveThread } from './serve-thread.ts'
export type { PrepareThread } from './serve-thread.ts'
export { ThreadPool } from './thread-pool.ts'
