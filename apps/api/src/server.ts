/**
 * The HTTP control API. It puts operations on queues and shows how they fare; it opens no database
 * and no repository. It has no access control yet: see guard.ts for what stands in for it.
 */
import fastifySwagger from '@fastify/swagger'
import { fastify } from 'fastify'
import type { FastifyInstance } from 'fastify'
import { jsonSchemaTransform, serializerCompiler, validatorCompiler } from 'fastify-type-provider-zod'
import type { Config } from '@tidemark/config'
import type { Logger } from '@tidemark/kernel'
import type { OperationQueue } from '@tidemark/queue'
import { refuseStrangers, requireJson } from './guard.ts'
import { answerError, handleErrors } from './problems.ts'
import { registerQueueBoard } from './queue-board.ts'
import { healthRoutes } from './routes/health.ts'
import { operationRoutes } from './routes/operations.ts'
import { maintenanceRoutes, requestRoutes } from './routes/requests.ts'

export interface ServerDependencies {
  readonly config: Pick<Config, 'clusters' | 'repositories' | 'workers'>
  readonly queue: OperationQueue
  /** Throws when Redis cannot be used. */
  readonly checkReady: () => Promise<void>
  readonly logger: Logger
  /** Pause between heartbeats of event streams; default 15 s. */
  readonly heartbeatMs?: number
}

const BODY_LIMIT_BYTES = 16_384
/** Longer than the longest answer, which is the queue's two seconds. */
const LAST_ANSWERS_MS = 3000

/** Ready for `listen` or `inject`; the caller closes it, before the queue. */
export async function buildServer(dependencies: ServerDependencies): Promise<FastifyInstance> {
  const { config, queue, checkReady, logger, heartbeatMs = 15_000 } = dependencies
  const app = fastify({
    bodyLimit: BODY_LIMIT_BYTES,
    requestTimeout: 10_000,
    routerOptions: { maxParamLength: 200 },
    frameworkErrors: (error, request, reply) => {
      void answerError(error, request, reply, logger)
    },
  })
  // A client that connected and stays silent counts as busy and would hold up shutdown for a minute.
  app.addHook('preClose', async () => {
    setTimeout(() => app.server.closeAllConnections(), LAST_ANSWERS_MS).unref()
  })
  app.setValidatorCompiler(validatorCompiler)
  app.setSerializerCompiler(serializerCompiler)
  handleErrors(app, logger)
  app.addHook('onRequest', refuseStrangers)
  app.addHook('onSend', async (_request, reply) => {
    void reply.headers({ 'x-content-type-options': 'nosniff', 'x-frame-options': 'DENY' })
    if (!reply.hasHeader('cache-control')) void reply.header('cache-control', 'no-store')
  })
  app.addHook('onResponse', async ({ method, url, id }, reply) => {
    logger.debug(
      { requestId: id, method, url, status: reply.statusCode, durationMs: Math.round(reply.elapsedTime) },
      'request',
    )
  })

  await app.register(fastifySwagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title: 'Tidemark', version: '1', description: 'Control API. Loopback only; no access control yet.' },
    },
    transform: jsonSchemaTransform,
  })
  healthRoutes(app, checkReady)
  await app.register(
    async (v1) => {
      requireJson(v1)
      requestRoutes(v1, { queue, config })
      maintenanceRoutes(v1, { queue, config })
      operationRoutes(v1, { queue, heartbeatMs })
      v1.get('/openapi.json', { schema: { hide: true } }, async () => app.swagger())
    },
    { prefix: '/v1' },
  )
  await registerQueueBoard(app, queue, hostsOf(config))
  await app.ready()
  return app
}

/** Every host that the configuration mentions. */
function hostsOf({ repositories, workers }: ServerDependencies['config']): string[] {
  const owners = Object.values(repositories).flatMap((repository) =>
    repository.kind === 'file' ? (repository.host ?? []) : [],
  )
  return [...new Set([...owners, ...Object.values(workers).map(({ host }) => host)])].sort()
}
