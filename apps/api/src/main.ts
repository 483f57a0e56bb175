import { loadConfig } from '@tidemark/config'
import { OPERATION_KINDS } from '@tidemark/contracts'
import { createMetrics, runApp, startHealthServer } from '@tidemark/observability'
import { OperationQueue, connectRedis } from '@tidemark/queue'
import { buildServer } from './server.ts'

await runApp('api', async (app) => {
  const { stack } = app
  // Opens neither databases nor repositories, and should not be given their secrets.
  const config = loadConfig({ secrets: 'optional' })
  app.setLogLevel(config.logLevel)
  const { logger } = app
  for (const warning of config.warnings) logger.warn({ warning }, 'configuration warning')

  const connection = stack.use(connectRedis(config.redis, 'producer', logger))
  const queue = stack.use(new OperationQueue({ connection, logger }))

  const metrics = createMetrics()
  metrics.gauge('queue_jobs', 'Jobs by queue and state', ['queue', 'state'], async () =>
    (await queue.countJobs(OPERATION_KINDS)).map(({ queue, state, jobs }) => ({
      labels: { queue, state },
      value: jobs,
    })),
  )
  metrics.gauge('queue_workers', 'Connected workers by queue', ['queue'], async () =>
    (await queue.countWorkers(OPERATION_KINDS)).map(({ queue, workers }) => ({ labels: { queue }, value: workers })),
  )
  const checks = { redis: () => connection.checkReady() }
  const health = stack.use(await startHealthServer({ port: config.api.healthPort, checks, metrics }))

  const server = await buildServer({ config, queue, checkReady: checks.redis, logger })
  stack.defer(() => server.close())
  const url = await server.listen({ host: config.api.host, port: config.api.port })
  logger.info({ url }, 'listening on loopback only: this API has no access control yet')
  return { url, healthUrl: `http://${health.host}:${health.port}`, access: 'loopback only, no access control' }
})
