import { AbortedError } from '@tidemark/kernel'
import { ConnectionLostError, ServerShutdownError, runBaseBackup } from '@tidemark/postgres'
import { startPostgres, until, type TestPostgres } from '@tidemark/testkit'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { sinkWith } from './data-directory-sink.ts'
import { fill, noDeadline, targetOf } from './server-target.ts'

let server: TestPostgres
beforeAll(async () => {
  server = await startPostgres({
    name: 'failing',
    settings: { fsync: 'off', checkpoint_timeout: '1h', max_wal_size: '4GB' },
  })
  await fill(server, 'filling', 60)
})
afterAll(() => server[Symbol.asyncDispose]())

const options = { label: 'test', checkpoint: 'fast' } as const

function walsenders(): Promise<{ pid: number }[]> {
  return server.query<{ pid: number }>("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walsender'")
}

test('an abort in mid-stream rejects as aborted and leaves no walsender behind', async () => {
  const abort = new AbortController()
  const sink = sinkWith({ onFileChunk: (chunk) => (chunk.length > 8000 ? abort.abort() : undefined) })
  await expect(runBaseBackup(targetOf(server), options, sink, abort.signal)).rejects.toThrow(AbortedError)
  await until(async () => (await walsenders()).length === 0, { what: 'the walsender to end' })
})

test('an abort while the sink never answers still rejects', async () => {
  const abort = new AbortController()
  const sink = sinkWith({
    onFileChunk: () => {
      queueMicrotask(() => abort.abort())
      return new Promise(() => {})
    },
  })
  await expect(runBaseBackup(targetOf(server), options, sink, abort.signal)).rejects.toThrow(AbortedError)
  await until(async () => (await walsenders()).length === 0, { what: 'the walsender to end' })
})

test('an abort during a spread checkpoint cancels the walsender that waits for it', async () => {
  await server.query('SET synchronous_commit = off; UPDATE filling SET text = reverse(text) WHERE id % 20 = 0')
  const abort = new AbortController()
  const running = runBaseBackup(targetOf(server), { label: 'spread', checkpoint: 'spread' }, sinkWith({}), abort.signal)
  // Handled at once: it rejects while the test still looks at the server.
  const outcome = running.then(
    () => 'finished',
    (error: unknown) => error,
  )
  await until(async () => {
    const [row] = await server.query('SELECT phase FROM pg_stat_progress_basebackup')
    return row?.['phase'] === 'waiting for checkpoint to finish'
  })
  abort.abort()
  expect(await outcome).toBeInstanceOf(AbortedError)
  await until(async () => (await walsenders()).length === 0, { timeoutMs: 10_000, what: 'the walsender to end' })
})

test('what a sink throws ends the backup with that very error', async () => {
  const full = new Error('disk full')
  for (const onFileChunk of [
    () => {
      throw full
    },
    () => Promise.reject(full),
  ]) {
    await expect(runBaseBackup(targetOf(server), options, sinkWith({ onFileChunk }), noDeadline)).rejects.toBe(full)
  }
  await until(async () => (await walsenders()).length === 0, { what: 'the walsenders to end' })
})

test('a walsender that falls silent is given up after the idle deadline', async () => {
  let stopped: number | undefined
  const sink = sinkWith({
    onFileChunk: async () => {
      if (stopped !== undefined) return
      stopped = (await walsenders())[0]?.pid
      if (stopped !== undefined) process.kill(stopped, 'SIGSTOP')
    },
  })
  try {
    const running = runBaseBackup(targetOf(server), { ...options, idleTimeoutMs: 300 }, sink, noDeadline)
    await expect(running).rejects.toMatchObject({ code: 'PG_CONNECTION_LOST', facts: { reason: 'silent for 300 ms' } })
  } finally {
    if (stopped !== undefined) process.kill(stopped, 'SIGCONT')
  }
  await until(async () => (await walsenders()).length === 0, { what: 'the walsender to end' })
})

test('a fast shutdown in mid-stream is named as one', async () => {
  let stopping: Promise<void> | undefined
  const sink = sinkWith({ onFileChunk: () => void (stopping ??= server.stop('fast')) })
  // Throttled, the walsender sleeps between writes and can still say why it leaves.
  const running = runBaseBackup(targetOf(server), { ...options, maxRateKiB: 1024 }, sink, noDeadline)
  await expect(running).rejects.toThrow(ServerShutdownError)
  await stopping
  await server.start()
})

test('a server killed hard in mid-backup is a lost connection', async () => {
  let killing: Promise<void> | undefined
  const sink = sinkWith({ onFileChunk: () => (killing ??= server.killHard()) })
  await expect(runBaseBackup(targetOf(server), options, sink, noDeadline)).rejects.toThrow(ConnectionLostError)
  await server.start()
})

test('corrupted pages end as damaged, with everything received and the file named', async () => {
  const [row] = await server.query<{ path: string }>("SELECT pg_relation_filepath('filling') AS path")
  await server.stop('fast')
  const heap = await open(join(server.dataDirectory, row?.path ?? ''), 'r+')
  await heap.write(Buffer.alloc(64, 0x5a), 0, 64, 10 * 8192 + 4000)
  await heap.close()
  await server.start()

  let manifestBytes = 0
  const sink = sinkWith({ onManifestChunk: (chunk) => void (manifestBytes += chunk.length) })
  const end = await runBaseBackup(targetOf(server), options, sink, noDeadline)
  expect(end).toMatchObject({ kind: 'damaged', checksumFailure: { sqlState: 'XX001', severity: 'ERROR' } })
  expect(end.manifestBytes).toBe(manifestBytes)
  expect(end.stopLsn).toBeGreaterThan(end.startLsn)
  expect(
    end.notices.some(({ message }) => message.includes(row?.path ?? 'no path') && message.includes('block 10')),
  ).toBe(true)
})
