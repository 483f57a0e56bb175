import { once } from 'node:events'
import { connect } from 'node:net'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { operationSchema } from '@tidemark/contracts'
import type { Operation } from '@tidemark/contracts'
import { startRedis, until } from '@tidemark/testkit'
import type { TestRedis } from '@tidemark/testkit'
import { backupResult } from '../queue/fixture.ts'
import { ApiBench } from './fixture.ts'

let redis: TestRedis
let api: ApiBench
let base: string
beforeAll(async () => {
  redis = await startRedis()
  api = await ApiBench.start(redis)
  await api.app.listen({ host: '127.0.0.1', port: 0 })
  base = `http://127.0.0.1:${(api.app.server.address() as AddressInfo).port}`
})
afterAll(async () => {
  await api[Symbol.asyncDispose]()
  await redis[Symbol.asyncDispose]()
})

interface Stream {
  readonly status: number
  readonly contentType: string | null
  /** All that has arrived so far. */
  readonly text: () => string
  readonly ended: Promise<void>
  readonly close: () => void
}

async function open(operationId: string, lastEventId?: string): Promise<Stream> {
  const controller = new AbortController()
  const response = await fetch(`${base}/v1/operations/${operationId}/events`, {
    headers: lastEventId === undefined ? {} : { 'last-event-id': lastEventId },
    signal: controller.signal,
  })
  let text = ''
  const ended = (async () => {
    const decoder = new TextDecoder()
    for await (const chunk of response.body ?? []) text += decoder.decode(chunk, { stream: true })
  })()
  ended.catch(() => {})
  return {
    status: response.status,
    contentType: response.headers.get('content-type'),
    text: () => text,
    ended,
    close: () => controller.abort(),
  }
}

function eventsIn(text: string): { id: string; operation: Operation }[] {
  return [...text.matchAll(/^id: (.+)\nevent: operation\ndata: (.+)\n\n/gm)].map(([, id = '', data = '']) => ({
    id,
    operation: operationSchema.parse(JSON.parse(data)),
  }))
}

test('the stream shows every state, sends heartbeats in between, and ends after the terminal one', async () => {
  const { operationId } = await api.queue.enqueueBackup({ cluster: 'main' })
  const stream = await open(operationId)
  expect(stream.contentType).toBe('text/event-stream; charset=utf-8')
  await until(() => stream.text().includes(': still here'))
  const { promise: finished, resolve: finish } = Promise.withResolvers<void>()
  const worker = await api.worker({
    kind: 'backup',
    process: async (_job, { progress }) => {
      progress({ phase: 'copy', bytesDone: 7 })
      await finished
      return backupResult
    },
  })
  await until(() => eventsIn(stream.text()).some(({ operation }) => operation.progress?.bytesDone === 7))
  finish()
  await stream.ended
  await worker[Symbol.asyncDispose]()
  const states = eventsIn(stream.text()).map(({ operation }) => operation.state)
  expect(states[0]).toBe('queued')
  expect(states).toContain('running')
  expect(states.at(-1)).toBe('succeeded')
  expect(states.filter((state) => state === 'succeeded')).toHaveLength(1)

  // Coming back with the last id: nothing new will ever come, and 204 makes an EventSource stop.
  const lastId = eventsIn(stream.text()).at(-1)?.id
  expect((await open(operationId, lastId)).status).toBe(204)
  // Coming back with an older one: the terminal snapshot, then the end.
  const late = await open(operationId, eventsIn(stream.text())[0]?.id)
  await late.ended
  expect(eventsIn(late.text()).map(({ operation }) => operation.state)).toEqual(['succeeded'])
})

test('a client that comes back is not sent what it has', async () => {
  const { operationId } = await api.queue.enqueueBackup({ cluster: 'owned' })
  const first = await open(operationId)
  const [event] = await until(() => {
    const events = eventsIn(first.text())
    return events.length > 0 && events
  })
  first.close()
  const second = await open(operationId, event?.id)
  await until(() => second.text().includes(': still here'))
  expect(eventsIn(second.text())).toEqual([])
  second.close()
})

test('closing the server ends open streams, and does not wait for a client that says nothing', async () => {
  await using own = await ApiBench.start(redis)
  await own.app.listen({ host: '127.0.0.1', port: 0 })
  const { operationId } = await own.queue.enqueueBackup({ cluster: 'main' })
  const port = (own.app.server.address() as AddressInfo).port
  const response = await fetch(`http://127.0.0.1:${port}/v1/operations/${operationId}/events`)
  const started = performance.now()
  const reading = response.text()
  const silent = connect(port, '127.0.0.1')
  await once(silent, 'connect')
  await own.app.close()
  silent.destroy()
  expect(await reading).toContain('"state":"queued"')
  expect(performance.now() - started).toBeLessThan(10_000)
})
