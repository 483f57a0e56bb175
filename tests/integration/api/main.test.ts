import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { TemporaryFolder, startRedis, until } from '@tidemark/testkit'
import type { TestRedis } from '@tidemark/testkit'

let redis: TestRedis
let folder: TemporaryFolder
let child: ChildProcess | undefined
beforeAll(async () => {
  redis = await startRedis()
  folder = await TemporaryFolder.create('api')
})
afterAll(async () => {
  await redis[Symbol.asyncDispose]()
  await folder[Symbol.asyncDispose]()
})
afterEach(() => child?.kill('SIGKILL'))

interface Run {
  readonly process: ChildProcess
  readonly exited: Promise<unknown[]>
  readonly stdout: () => string
  readonly stderr: () => string
}

async function start(api: string): Promise<Run> {
  const path = folder.join('tidemark.yaml')
  await writeFile(
    path,
    `clusters: { main: { nodes: [{ host: 127.0.0.1 }], password: { env: NOT_FOR_THE_API } } }
repositories: { local: { url: 'file:///srv/tidemark', shared: true } }
redis: { url: '${redis.url}' }
api: ${api}
`,
  )
  const script = fileURLToPath(new URL('../../../apps/api/src/main.ts', import.meta.url))
  const started = spawn(process.execPath, [script], {
    env: { PATH: process.env['PATH'], TIDEMARK_CONFIG: path },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  child = started
  const output = { stdout: '', stderr: '' }
  started.stdout.on('data', (chunk: Buffer) => (output.stdout += chunk.toString()))
  started.stderr.on('data', (chunk: Buffer) => (output.stderr += chunk.toString()))
  return { process: started, exited: once(started, 'exit'), stdout: () => output.stdout, stderr: () => output.stderr }
}

test('the API starts without database passwords, says where it listens, serves metrics, and ends on SIGTERM with 0', async () => {
  const run = await start('{ port: 0, healthPort: 0 }')
  const ready = await until(() => run.stdout().includes('\n') && (JSON.parse(run.stdout()) as Record<string, string>))
  expect(ready).toMatchObject({ ready: true, app: 'api', access: 'loopback only, no access control' })
  expect(ready['url']).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/)
  await until(async () => (await fetch(`${ready['url']}/readyz`)).ok)
  const metrics = await (await fetch(`${ready['healthUrl']}/metrics`)).text()
  expect(metrics).toContain('tidemark_queue_jobs{queue="backup",state="waiting"} 0')
  expect(run.stderr()).toContain('listening on loopback only')
  run.process.kill('SIGTERM')
  expect(await run.exited).toEqual([0, null])
})

test('a second signal ends a process that hangs in shutdown', async () => {
  const run = await start('{ port: 0, healthPort: 0 }')
  const ready = await until(() => run.stdout().includes('\n') && (JSON.parse(run.stdout()) as Record<string, string>))
  // A client that holds its connection open delays the end long enough for a second signal.
  const { connect } = await import('node:net')
  const silent = connect(Number(new URL(ready['url'] ?? '').port), '127.0.0.1')
  await once(silent, 'connect')
  run.process.kill('SIGTERM')
  await until(() => run.stderr().includes('shutting down'))
  run.process.kill('SIGTERM')
  expect(await run.exited).toEqual([128 + 15, null])
  silent.destroy()
})

test('an address that others can reach is refused before anything listens', async () => {
  const run = await start('{ host: 0.0.0.0 }')
  expect(await run.exited).toEqual([78, null])
  expect(run.stderr()).toContain('api.host')
  expect(run.stderr()).toContain('no access control yet')
  expect(run.stdout()).toBe('')
})
