import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { expect, test } from 'vitest'
import { endThread } from './end-thread.ts'

const started = async (code: string): Promise<Worker> => {
  const worker = new Worker(`require('node:worker_threads').parentPort.postMessage('up'); ${code}`, { eval: true })
  await once(worker, 'message')
  return worker
}

test('a thread that hears the request ends by itself, and one that ended already is left alone', async () => {
  const worker = await started(`const { parentPort } = require('node:worker_threads')
    parentPort.on('message', (message) => message === 'stop' && process.exit(7))`)
  const code = once(worker, 'exit')
  await endThread(worker)
  expect(await code).toEqual([7])
  await endThread(worker)
})

test('a thread that does not answer is terminated', async () => {
  const worker = await started('for (;;);')
  const code = once(worker, 'exit')
  await endThread(worker, 20)
  expect(await code).toEqual([1])
})

test('a thread that fails instead of ending is no failure of who ends it', async () => {
  const worker = await started(
    `require('node:worker_threads').parentPort.on('message', () => { throw new Error('late') })`,
  )
  worker.on('error', () => {})
  await endThread(worker)
  expect(worker.threadId).toBe(-1)
})
