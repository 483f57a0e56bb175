import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startRedis } from '@tidemark/testkit'
import type { TestRedis } from '@tidemark/testkit'
import { ApiBench } from './fixture.ts'

let redis: TestRedis
let api: ApiBench
beforeAll(async () => {
  redis = await startRedis()
  api = await ApiBench.start(redis)
})
afterAll(async () => {
  await api[Symbol.asyncDispose]()
  await redis[Symbol.asyncDispose]()
})

const everywhere = [
  '/v1/operations/backup-00000000000000000000000000',
  '/livez',
  '/queues',
  '/queues/api/queues',
  '/nowhere',
]

describe.each(everywhere)('%s', (url) => {
  test.each(['evil.example', 'evil.example:8080', '127.0.0.1.evil.example', '10.0.0.7:8080', 'localhost.evil.example'])(
    'refuses the Host %j, as after DNS rebinding',
    async (host) => {
      const answer = await api.get(url, { host })
      expect(answer.statusCode).toBe(403)
      expect(answer.json()).toMatchObject({ code: 'HOST_REFUSED' })
    },
  )

  test.each(['http://evil.example', 'null', 'http://localhost:3000', 'https://localhost:8080'])(
    'refuses the Origin %j',
    async (origin) => {
      const answer = await api.get(url, { host: 'localhost:8080', origin })
      expect(answer.statusCode).toBe(403)
      expect(answer.json()).toMatchObject({ code: 'ORIGIN_REFUSED' })
    },
  )
})

test.each(['127.0.0.1:8080', 'localhost', 'LOCALHOST:8080', '[::1]:8080', '127.0.0.2'])(
  'accepts the Host %j',
  async (host) => {
    expect((await api.get('/livez', { host })).statusCode).toBe(200)
  },
)

test('accepts its own Origin', async () => {
  const answer = await api.get('/livez', { host: 'localhost:8080', origin: 'http://localhost:8080' })
  expect(answer.statusCode).toBe(200)
})

describe('a POST without application/json is refused, as browsers send it across origins', () => {
  test.each([
    'text/plain',
    'application/x-www-form-urlencoded',
    'multipart/form-data; boundary=x',
    'application/jsonp',
  ])('%s', async (contentType) => {
    const answer = await api.app.inject({
      method: 'POST',
      url: '/v1/clusters/main/backups',
      headers: { 'content-type': contentType },
      payload: '{}',
    })
    expect(answer.statusCode).toBe(415)
  })

  test('also with no body and no type at all', async () => {
    const answer = await api.app.inject({ method: 'POST', url: '/v1/clusters/main/backups' })
    expect(answer.statusCode).toBe(415)
    expect(await api.queue.boardQueue('backup').count()).toBe(0)
  })
})

test('answers forbid sniffing, framing and caching', async () => {
  expect((await api.get('/livez')).headers).toMatchObject({
    'x-content-type-options': 'nosniff',
    'x-frame-options': 'DENY',
    'cache-control': 'no-store',
  })
})
