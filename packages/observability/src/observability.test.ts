import { once } from 'node:events'
import { type IncomingMessage, get } from 'node:http'
import { Writable } from 'node:stream'
import { describe, expect, test } from 'vitest'
import { OperationalError, Redacted } from '@tidemark/kernel'
import { createJobMetrics, createLogger, createMetrics, runChecks, startHealthServer } from './index.ts'

class TestError extends OperationalError {
  override readonly code = 'TEST'
  override readonly retry = 'never'
}

function capture(): { stream: Writable; lines: () => Record<string, unknown>[] } {
  let text = ''
  const stream = new Writable({
    write(chunk: Buffer, _encoding, done) {
      text += chunk.toString()
      done()
    },
  })
  return {
    stream,
    lines: () =>
      text
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as Record<string, unknown>),
  }
}

describe('logs', () => {
  test('are JSON lines with app, level in words and RFC 3339 time', () => {
    const { stream, lines } = capture()
    const logger = createLogger({ name: 'api', to: stream, bindings: { host: 'db1' } })
    logger.child({ operationId: 'x' }).info({ bytes: 3 }, 'done')
    expect(lines()[0]).toMatchObject({
      app: 'api',
      level: 'info',
      host: 'db1',
      operationId: 'x',
      bytes: 3,
      msg: 'done',
    })
    expect(lines()[0]?.['time']).toMatch(/^\d{4}-.*Z$/)
  })

  test('show neither wrapped secrets nor values under secret names', () => {
    const { stream, lines } = capture()
    const logger = createLogger({ name: 'api', to: stream })
    logger.info({ key: new Redacted('hunter2'), password: 'hunter2', s3: { secretAccessKey: 'hunter2' } }, 'x')
    expect(JSON.stringify(lines())).not.toContain('hunter2')
  })

  test('show what an operator needs of an error, and its cause', () => {
    const { stream, lines } = capture()
    const error = new TestError('failed', { hint: 'look', facts: { n: 1 }, cause: new Error('why') })
    createLogger({ name: 'api', to: stream }).error({ err: error }, 'x')
    expect(lines()[0]?.['err']).toMatchObject({
      code: 'TEST',
      retry: 'never',
      hint: 'look',
      facts: { n: 1 },
      cause: { message: 'why' },
    })
  })
})

describe('metrics', () => {
  test('every label pair stands at 0 from the start', async () => {
    const metrics = createMetrics()
    const jobs = createJobMetrics(metrics, ['backup', 'verify'])
    const before = await metrics.registry.metrics()
    expect(before).toContain('tidemark_jobs_finished_total{queue="verify",outcome="handed_back"} 0')
    expect(before).toContain('tidemark_job_duration_seconds_count{queue="backup",outcome="failed"} 0')
    jobs.finished('backup', 'succeeded', 12)
    expect(await metrics.registry.metrics()).toContain(
      'tidemark_jobs_finished_total{queue="backup",outcome="succeeded"} 1',
    )
  })

  test('a gauge that cannot be read is absent, not stale', async () => {
    const metrics = createMetrics()
    let fail = false
    metrics.gauge('depth', 'Depth', ['queue'], async () => {
      if (fail) throw new Error('gone')
      return [{ labels: { queue: 'backup' }, value: 4 }]
    })
    expect(await metrics.registry.metrics()).toContain('tidemark_depth{queue="backup"} 4')
    fail = true
    expect(await metrics.registry.metrics()).not.toContain('tidemark_depth{')
  })

  test('two apps in one process do not share a registry', () => {
    expect(() => [createMetrics(), createMetrics()]).not.toThrow()
  })
})

test('a check that hangs makes the process unready, it does not hang the probe', async () => {
  const readiness = await runChecks(
    {
      fine: async () => {},
      hanging: () => new Promise(() => {}),
      broken: () => Promise.reject(new TestError('x', { hint: 'fix it' })),
    },
    5,
  )
  expect(readiness).toEqual({
    ready: false,
    checks: {
      fine: { ok: true },
      hanging: { ok: false, code: 'TIMEOUT', hint: 'no answer within 5 ms' },
      broken: { ok: false, code: 'TEST', hint: 'fix it' },
    },
  })
})

test('a page that points its own name at loopback reads neither health nor metrics', async () => {
  await using health = await startHealthServer({ port: 0, checks: {}, metrics: createMetrics() })
  const statusFor = async (host: string, path: string): Promise<number | undefined> => {
    const request = get({ host: health.host, port: health.port, path, headers: { host } })
    const [response] = (await once(request, 'response')) as [IncomingMessage]
    response.resume()
    return response.statusCode
  }
  expect(await statusFor('127.0.0.1:9311', '/metrics')).toBe(200)
  for (const path of ['/livez', '/readyz', '/metrics']) expect(await statusFor('evil.example:9311', path)).toBe(403)
})
