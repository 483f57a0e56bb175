import { execFile } from 'node:child_process'
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { Worker } from 'node:worker_threads'
import { afterAll, beforeAll, expect, test } from 'vitest'

const run = promisify(execFile)
const root = dirname(dirname(fileURLToPath(import.meta.url)))
let dist: string

beforeAll(async () => {
  dist = await mkdtemp(join(tmpdir(), 'tidemark-build-'))
  await run(process.execPath, [join(root, 'scripts/build.ts'), dist])
  await writeFile(join(dist, 'package.json'), '{"type":"module"}')
}, 60_000)

afterAll(() => rm(dist, { recursive: true }))

test('the bundled command runs where no sources and no node_modules are', async () => {
  const { stdout } = await run(process.execPath, [join(dist, 'tidemark.js'), 'key', 'generate'], { cwd: dist })
  expect(stdout.trim()).toMatch(/^[0-9a-f]{64}$/)
})

test('each thread that a source starts has a bundle, which loads as a thread and names no source', async () => {
  const names = await readdir(dist)
  const threads = names.filter((name) => name.endsWith('-thread.js'))
  expect(threads).toContain('sealing-thread.js')
  for (const name of threads) {
    const worker = new Worker(join(dist, name))
    const code = await new Promise((resolve, reject) => worker.once('error', reject).once('exit', resolve))
    expect({ name, code }).toEqual({ name, code: 0 })
  }
  for (const name of names.filter((file) => file.endsWith('.js'))) {
    const { stdout } = await run('grep', ['-cE', String.raw`new URL\(.*-thread\.ts`, join(dist, name)]).catch(
      (error: unknown) => error as { stdout: string },
    )
    expect({ name, sourceThreads: stdout.trim() }).toEqual({ name, sourceThreads: '0' })
  }
})
