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

test.each([
  '/queues/api/queues/backup/obliterate',
  '/queues/api/queues/backup/empty',
  '/queues/api/queues/backup/pause',
  '/queues/api/queues/backup/promote',
  '/queues/api/queues/backup/clean/waiting',
])('PUT %s is 405 and changes nothing', async (url) => {
  const answer = await api.app.inject({ method: 'PUT', url })
  expect(answer.statusCode).toBe(405)
  expect(await api.queue.boardQueue('backup').count()).toBe(1)
})

test('a job can neither be removed, retried, changed nor added', async () => {
  for (const [method, url] of [
    ['PUT', `/queues/api/queues/backup/${jobId}/clean`],
    ['PUT', `/queues/api/queues/backup/${jobId}/retry/failed`],
    ['PUT', `/queues/api/queues/backup/${jobId}/promote`],
    ['PATCH', `/queues/api/queues/backup/${jobId}/update-data`],
    ['POST', '/queues/api/queues/backup/add'],
  ] as const) {
    const answer = await api.app.inject({ method, url, payload: {} })
    expect([method, url, answer.statusCode]).toEqual([method, url, 405])
  }
  expect(await api.queue.readOperation(jobId)).toMatchObject({ state: 'queued' })
})
