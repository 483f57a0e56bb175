/** A worker in a process of its own, for tests that kill it. Its job never ends by itself. */
import { writeSync } from 'node:fs'
import { connectRedis, startWorker } from '@tidemark/queue'

const [kind, url, prefix] = process.argv.slice(2) as ['backup' | 'restore', string, string]

startWorker({
  kind,
  connection: connectRedis({ url, prefix }, 'worker'),
  lockDurationMs: 2000,
  stalledIntervalMs: 500,
  process: ({ operationId }) => {
    writeSync(1, `${operationId}\n`)
    return new Promise(() => {})
  },
})
