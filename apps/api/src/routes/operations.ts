import type { FastifyInstance } from 'fastify'
import type { ZodTypeProvider } from 'fastify-type-provider-zod'
import { isTerminal, operationSchema } from '@tidemark/contracts'
import type { OperationQueue } from '@tidemark/queue'
import type { Operation } from '@tidemark/contracts'
import { z } from 'zod'
import { eventId, streamOperation } from '../event-stream.ts'
import { RequestRefusedError } from '../problems.ts'

const MAX_STREAMS = 200

export interface OperationRoutesOptions {
  readonly queue: OperationQueue
  readonly heartbeatMs: number
}

export function operationRoutes(root: FastifyInstance, { queue, heartbeatMs }: OperationRoutesOptions): void {
  const app = root.withTypeProvider<ZodTypeProvider>()
  // Any text: what is no operation id is an operation that does not exist.
  const params = z.strictObject({ id: z.string() })

  async function find(id: string): Promise<Operation> {
    const operation = await queue.readOperation(id)
    if (operation) return operation
    throw new RequestRefusedError(
      404,
      'UNKNOWN_OPERATION',
      'no such operation is known',
      'check the id; finished operations are forgotten after some weeks, their backups are not',
    )
  }

  app.get(
    '/operations/:id',
    { schema: { summary: 'The state of an operation', params, response: { 200: operationSchema } } },
    async (request) => find(request.params.id),
  )

  const streams = new Set<AbortController>()
  app.addHook('preClose', async () => {
    for (const stream of streams) stream.abort()
  })
  app.get(
    '/operations/:id/events',
    { schema: { summary: 'Snapshots of an operation as server-sent events', params, produces: ['text/event-stream'] } },
    async (request, reply) => {
      const { id } = request.params
      const lastEventId = request.headers['last-event-id']?.toString()
      const operation = await find(id)
      if (isTerminal(operation.state) && eventId(operation) === lastEventId) return reply.code(204).send()
      if (streams.size >= MAX_STREAMS) {
        throw new RequestRefusedError(
          503,
          'TOO_MANY_STREAMS',
          'too many event streams are open',
          'poll GET /v1/operations/{id} instead',
        )
      }
      const stream = new AbortController()
      streams.add(stream)
      reply.raw.once('close', () => stream.abort())
      reply.hijack()
      try {
        const snapshots = queue.watchOperation(id, stream.signal)
        await streamOperation(reply.raw, snapshots, { lastEventId, heartbeatMs, signal: stream.signal })
      } catch (error) {
        // The response has begun, so there is nobody to tell; the client comes back and asks again.
        if (!stream.signal.aborted) request.log.warn({ err: error }, 'event stream ended early')
      } finally {
        streams.delete(stream)
      }
      return reply
    },
  )
}
