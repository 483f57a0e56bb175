import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { acceptedSchema, operationSchema, problemDetailsSchema } from '@tidemark/contracts'
import type { ProblemDetails } from '@tidemark/contracts'
import { startRedis } from '@tidemark/testkit'
import type { TestRedis } from '@tidemark/testkit'
import { backupResult, restoreResult } from '../queue/fixture.ts'
import { ApiBench } from './fixture.ts'

let redis: TestRedis
let api: ApiBench
beforeAll(async () => {
  redis = await startRedis()
})
afterAll(() => redis[Symbol.asyncDispose]())
beforeEach(async () => {
  api = await ApiBench.start(redis)
})
afterEach(() => api[Symbol.asyncDispose]())

function raw(payload: string) {
  return api.app.inject({ method: 'POST', url: backups, payload, headers: { 'content-type': 'application/json' } })
}

type Answer = Awaited<ReturnType<ApiBench['post']>>

function problemOf(answer: Answer): ProblemDetails {
  expect(answer.headers['content-type']).toBe('application/problem+json')
  const problem = problemDetailsSchema.parse(answer.json())
  expect(problem.status).toBe(answer.statusCode)
  return problem
}

const backups = '/v1/clusters/main/backups'
const restore = { cluster: 'main', backupId: 'latest', targetDirectory: '/srv/restore' }

test('asking for a backup answers 202, where to follow it, and the operation is there', async () => {
  const answer = await api.post(backups, { label: 'before upgrade' })
  expect(answer.statusCode).toBe(202)
  const { operationId, created, location } = acceptedSchema.parse(answer.json())
  expect(created).toBe(true)
  expect(answer.headers.location).toBe(location)
  const operation = await api.get(location)
  expect(operation.statusCode).toBe(200)
  expect(operationSchema.parse(operation.json())).toMatchObject({ id: operationId, kind: 'backup', state: 'queued' })
})

test('an operation shows its result once a worker has carried it out', async () => {
  await api.worker({ kind: 'backup', process: async () => backupResult })
  const { location, operationId } = acceptedSchema.parse((await api.post(backups, {})).json())
  for await (const _snapshot of api.queue.watchOperation(operationId, AbortSignal.timeout(20_000)));
  expect((await api.get(location)).json()).toMatchObject({ state: 'succeeded', result: backupResult })
})

test('a verification is asked for under its backup', async () => {
  const answer = await api.post(`${backups}/latest/verifications`, { level: 'contents' })
  expect(answer.statusCode).toBe(202)
  const { operationId } = acceptedSchema.parse(answer.json())
  const job = await api.queue.boardQueue('verify').getJob(operationId)
  expect(job?.data).toMatchObject({ job: { cluster: 'main', backupId: 'latest', level: 'contents' } })
})

test("work on a file repository goes to its owner's queue, and is found all the same", async () => {
  const backup = acceptedSchema.parse((await api.post('/v1/clusters/owned/backups', {})).json())
  const restored = acceptedSchema.parse((await api.post('/v1/restores', { ...restore, cluster: 'owned' })).json())
  expect(await api.queue.boardQueue('backup', 'db1').count()).toBe(1)
  expect(await api.queue.boardQueue('restore', 'db1').count()).toBe(1)
  expect((await api.get(backup.location)).json()).toMatchObject({ state: 'queued' })
  expect((await api.get(restored.location)).json()).toMatchObject({ state: 'queued' })
})

describe('restores', () => {
  test('default to the clone profile', async () => {
    const { operationId } = acceptedSchema.parse((await api.post('/v1/restores', restore)).json())
    const job = await api.queue.boardQueue('restore').getJob(operationId)
    expect(job?.data).toMatchObject({ job: { profile: 'clone', targetDirectory: '/srv/restore' } })
  })

  test('of the production profile are refused over HTTP', async () => {
    const problem = problemOf(await api.post('/v1/restores', { ...restore, profile: 'production' }))
    expect(problem).toMatchObject({ status: 403, code: 'PROFILE_REFUSED' })
    expect(await api.queue.boardQueue('restore').count()).toBe(0)
  })

  test.each(['relative/path', '/srv/../etc', '/srv//x', '/srv/x/', '/', '/srv/\u0000x'])(
    'into %j are refused',
    async (targetDirectory) => {
      const problem = problemOf(await api.post('/v1/restores', { ...restore, targetDirectory }))
      expect(problem).toMatchObject({ status: 400, code: 'REQUEST_INVALID', errors: [{ pointer: '/targetDirectory' }] })
    },
  )

  test('on a host that no worker ever served are refused; on a known one they reach its queue', async () => {
    const unknown = problemOf(await api.post('/v1/restores', { ...restore, host: 'db9' }))
    expect(unknown).toMatchObject({ status: 422, code: 'UNKNOWN_HOST', errors: [{ pointer: '/host' }] })
    await api.worker({ kind: 'restore', host: 'db2', process: async () => restoreResult })
    const answer = await api.post('/v1/restores', { ...restore, host: 'db2' })
    const { operationId } = acceptedSchema.parse(answer.json())
    for await (const _snapshot of api.queue.watchOperation(operationId, AbortSignal.timeout(20_000)));
    expect(await api.queue.readOperation(operationId)).toMatchObject({ state: 'succeeded' })
  })
})

describe('idempotency and conflicts', () => {
  test('the same key and body give the same operation', async () => {
    const headers = { 'idempotency-key': 'deploy-42' }
    const first = await api.post(backups, {}, headers)
    const second = await api.post(backups, {}, headers)
    expect(second.statusCode).toBe(202)
    expect(second.json()).toEqual({ ...first.json<object>(), created: false })
  })

  test('the same key with another body is 422', async () => {
    const headers = { 'idempotency-key': 'deploy-42' }
    await api.post(backups, {}, headers)
    const problem = problemOf(await api.post(backups, { label: 'other' }, headers))
    expect(problem).toMatchObject({ status: 422, code: 'IDEMPOTENCY_KEY_REUSED' })
  })

  test('a second backup with other options is 409 and names the one in the way', async () => {
    const { operationId } = acceptedSchema.parse((await api.post(backups, {})).json())
    const problem = problemOf(await api.post(backups, { checkpoint: 'spread' }))
    expect(problem).toMatchObject({ status: 409, code: 'OPERATION_CONFLICT', facts: { operationId } })
  })

  test('a key that is no visible ASCII is 400 and points at the header', async () => {
    const problem = problemOf(await api.post(backups, {}, { 'idempotency-key': 'a b' }))
    expect(problem).toMatchObject({ status: 400, errors: [{ pointer: 'header:idempotency-key' }] })
  })
})

describe('refusals', () => {
  test('unknown body keys are 400, each with its pointer', async () => {
    const problem = problemOf(await api.post(backups, { sped: 1, 'a/b': 2, compressionLevel: 99 }))
    expect(problem).toMatchObject({
      status: 400,
      code: 'REQUEST_INVALID',
      type: 'https://tidemark.dev/problems/request-invalid',
    })
    expect(problem.errors?.map(({ pointer }) => pointer).sort()).toEqual(['/a~1b', '/compressionLevel', '/sped'])
  })

  test('an unknown cluster is 404, also one named like a property of every object', async () => {
    for (const name of ['absent', 'constructor', '__proto__', '..%2f..%2fetc']) {
      const problem = problemOf(await api.post(`/v1/clusters/${name}/backups`, {}))
      expect(problem).toMatchObject({ status: 404, code: 'UNKNOWN_CLUSTER' })
    }
  })

  test('a repository of another cluster is 422', async () => {
    const problem = problemOf(await api.post(backups, { repositories: ['shared', 'disk'] }))
    expect(problem).toMatchObject({ status: 422, code: 'UNKNOWN_REPOSITORY', errors: [{ pointer: '/repositories/1' }] })
  })

  test('an unknown operation is 404, whatever its id looks like', async () => {
    for (const id of ['backup-00000000000000000000000000', 'nonsense', 'backup-1%3A2']) {
      expect(problemOf(await api.get(`/v1/operations/${id}`))).toMatchObject({ status: 404, code: 'UNKNOWN_OPERATION' })
      expect(problemOf(await api.get(`/v1/operations/${id}/events`))).toMatchObject({
        status: 404,
        code: 'UNKNOWN_OPERATION',
      })
    }
  })

  test('an unknown backup id form is 400 and points at the path', async () => {
    const problem = problemOf(await api.post(`${backups}/newest/verifications`, {}))
    expect(problem).toMatchObject({ status: 400, errors: [{ pointer: 'path:backupId' }] })
  })

  test('malformed, missing and oversized bodies are problems too', async () => {
    expect(problemOf(await raw('{"label":'))).toMatchObject({ status: 400, code: 'BODY_MALFORMED' })
    expect(problemOf(await raw(''))).toMatchObject({ status: 400, code: 'BODY_MISSING' })
    expect(problemOf(await raw(JSON.stringify({ label: 'x'.repeat(20_000) })))).toMatchObject({
      status: 413,
      code: 'BODY_TOO_LARGE',
    })
  })

  test('an unknown address is a problem', async () => {
    expect(problemOf(await api.get('/v2/everything'))).toMatchObject({ status: 404, code: 'NOT_FOUND' })
    expect(problemOf(await api.get('/v1/%E0%A4%A'))).toMatchObject({ status: 400, code: 'URL_MALFORMED' })
  })
})

test('copies and sweeps are asked for at the maintenance queue; names that are not configured are refused', async () => {
  const copy = { verb: 'copy', to: 'shared', backupId: 'missing' }
  for (const body of [{ cluster: 'main', task: copy }, { task: { verb: 'sweep', dryRun: true } }]) {
    const { location } = acceptedSchema.parse((await api.post('/v1/maintenance', body)).json())
    const operation = operationSchema.parse((await api.get(location)).json())
    expect(operation).toMatchObject({ kind: 'maintenance', state: 'queued' })
    expect(operation.cluster).toBe(body.cluster)
  }
  for (const [body, status, code] of [
    [{ task: { ...copy, to: 'nowhere' } }, 422, 'UNKNOWN_REPOSITORY'],
    [{ cluster: 'nobody', task: copy }, 404, 'UNKNOWN_CLUSTER'],
    [{ task: { ...copy, backupId: 'latest' } }, 400, 'REQUEST_INVALID'],
    [{ task: { verb: 'delete' } }, 400, 'REQUEST_INVALID'],
  ] as const)
    expect(problemOf(await api.post('/v1/maintenance', body))).toMatchObject({ status, code })
})

test('the API describes itself', async () => {
  const answer = await api.get('/v1/openapi.json')
  expect(answer.statusCode).toBe(200)
  expect(Object.keys(answer.json<{ paths: object }>().paths).sort()).toEqual([
    '/v1/clusters/{name}/backups',
    '/v1/clusters/{name}/backups/{backupId}/verifications',
    '/v1/maintenance',
    '/v1/operations/{id}',
    '/v1/operations/{id}/events',
    '/v1/restores',
  ])
})

test('without Redis: alive, not ready, and 503 with a hint within three seconds', async () => {
  await using own = await startRedis()
  await using api = await ApiBench.start(own)
  expect((await api.get('/readyz')).statusCode).toBe(200)
  await own.killHard()
  const started = performance.now()
  const answer = await api.post(backups, {})
  expect(problemOf(answer)).toMatchObject({ status: 503, code: 'QUEUE_UNAVAILABLE', retry: 'backoff' })
  expect(answer.headers['retry-after']).toBe('5')
  expect(performance.now() - started).toBeLessThan(3000)
  expect((await api.get('/livez')).statusCode).toBe(200)
  const ready = await api.get('/readyz')
  expect(ready.statusCode).toBe(503)
  expect(ready.json()).toMatchObject({ ready: false, checks: { redis: { ok: false, code: 'QUEUE_UNAVAILABLE' } } })
})
