import { afterAll, beforeAll, expect, test } from 'vitest'
import { startRedis } from '@tidemark/testkit'
import type { TestRedis } from '@tidemark/testkit'
import { ApiBench } from './fixture.ts'

let redis: TestRedis
let api: ApiBench
let jobId: string
beforeAll(async () => {
  redis = await startRedis()
  api = await ApiBench.start(redis)
  jobId = (await api.queue.enqueueBackup({ cluster: 'main' })).operationId
})
afterAll(async () => {
  await api[Symbol.asyncDispose]()
  await redis[Symbol.asyncDispose]()
})

test('the board shows the page, its assets and the queues, the shared and the host ones', async () => {
  const page = await api.get('/queues')
  expect(page.statusCode).toBe(200)
  expect(page.body).toContain('<base href="/queues/"')
  const [asset] = /static\/js\/[^"]+\.js/.exec(page.body) ?? []
  expect((await api.get(`/queues/${asset}`)).statusCode).toBe(200)
  const { queues } = (await api.get('/queues/api/queues')).json<{ queues: { name: string; readOnlyMode: boolean }[] }>()
  expect(queues.map(({ name }) => name)).toEqual(expect.arrayContaining(['backup', 'verify', 'restore', 'backup.db1']))
  expect(queues.every(({ readOnlyMode }) => readOnlyMode)).toBe(true)
})

test('nothing can be changed: every action of the board is 405, and the job is still there', async () => {
  const actions = [
    ['PUT', 'pause'],
    ['PUT', 'backup/pause'],
    ['PUT', 'backup/obliterate'],
    ['PUT', 'backup/empty'],
    ['PUT', 'backup/promote'],
    ['PUT', 'backup/clean/waiting'],
    ['PUT', 'backup/retry/failed'],
    ['PUT', 'backup/concurrency'],
    ['PUT', `backup/${jobId}/retry`],
    ['PUT', `backup/${jobId}/clean`],
    ['PUT', `backup/${jobId}/promote`],
    ['PATCH', `backup/${jobId}/update-data`],
    ['POST', 'backup/add'],
  ] as const
  for (const [method, action] of actions) {
    const answer = await api.app.inject({ method, url: `/queues/api/queues/${action}`, payload: {} })
    expect([method, action, answer.statusCode]).toEqual([method, action, 405])
  }
  expect(await api.queue.boardQueue('backup').isPaused()).toBe(false)
  expect(await api.queue.readOperation(jobId)).toMatchObject({ state: 'queued' })
})
