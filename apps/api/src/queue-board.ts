/**
 * Bull Board at /queues: a look into the queues, never a hand on them.
 *
 * A writable board can obliterate a queue with one PUT. Two locks: readOnlyMode on every queue, and
 * 405 for every method that is not a read, whatever routes a later release adds. Base path and register prefix must be equal, or assets are not found.
 */
import { createBullBoard } from '@bull-board/api'
import { BullMQAdapter } from '@bull-board/api/bullMQAdapter'
import { FastifyAdapter } from '@bull-board/fastify'
import type { FastifyInstance } from 'fastify'
import { OPERATION_KINDS } from '@tidemark/contracts'
import type { Problem } from '@tidemark/contracts'
import type { OperationQueue } from '@tidemark/queue'
import { sendProblem } from './problems.ts'

const BOARD_PATH = '/queues'

const READ_ONLY: Problem = {
  code: 'BOARD_READ_ONLY',
  message: 'the queue board only shows',
  hint: 'ask for operations under /v1',
  retry: 'never',
  facts: {},
}

/** @param hosts whose own queues are shown beside the shared ones. */
export async function registerQueueBoard(
  app: FastifyInstance,
  queue: OperationQueue,
  hosts: readonly string[],
): Promise<void> {
  const serverAdapter = new FastifyAdapter().setBasePath(BOARD_PATH)
  const queues = OPERATION_KINDS.flatMap((kind) =>
    [undefined, ...hosts].map(
      (host) => new BullMQAdapter(queue.boardQueue(kind, host), { readOnlyMode: true, allowRetries: false }),
    ),
  )
  // @bull-board/fastify brings an @bull-board/api of its own, one patch release older: same shape, other identity.
  createBullBoard({
    queues,
    serverAdapter,
    options: { uiConfig: { boardTitle: 'Tidemark' } },
  })
  await app.register(async (scope) => {
    scope.addHook('onRequest', async (request, reply) => {
      if (request.method === 'GET' || request.method === 'HEAD') return undefined
      return sendProblem(reply, 405, READ_ONLY)
    })
    await scope.register(serverAdapter.registerPlugin(), { prefix: BOARD_PATH })
  })
}
