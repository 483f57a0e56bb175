/** What every worker app is made of: configuration, Redis, the shared queue and this host's own, health and metrics. */
import { keepHeapSmall } from '@tidemark/kernel'
import { loadConfig } from '@tidemark/config'
import type { Config } from '@tidemark/config'
import { queueName } from '@tidemark/contracts'
import type { JobOf, OperationKind, ResultOf } from '@tidemark/contracts'
import type { Metrics } from '@tidemark/observability'
import { createJobMetrics, createMetrics, runApp, startHealthServer } from '@tidemark/observability'
import { OperationQueue } from './operation-queue.ts'
import { connectRedis } from './redis.ts'
import { startWorker } from './start-worker.ts'
import type { JobContext } from './start-worker.ts'

export interface WorkerAppContext extends JobContext {
  readonly config: Config
  /** What this host calls itself in the configuration. */
  readonly host: string
  /** For work that leads to other work. */
  readonly queue: OperationQueue
}

export interface WorkerApp<K extends OperationKind> {
  readonly name: string
  readonly kind: K
  /** Throws an OperationalError when this configuration cannot work; called once, before any job is taken. */
  readonly check: (config: Config) => void
  /** Makes metrics of the app's own, once, before any job is taken. */
  readonly measure?: (metrics: Metrics, config: Config) => void
  readonly process: (job: JobOf[K], context: WorkerAppContext) => Promise<ResultOf[K]>
}

/** Runs until a signal; see runApp. On SIGTERM readiness goes off first, then jobs are finished or handed back. */
export async function runWorkerApp<K extends OperationKind>(app: WorkerApp<K>): Promise<void> {
  keepHeapSmall()
  await runApp(app.name, async (context) => {
    const { stack } = context
    // Only backups open databases.
    const config = loadConfig({ secrets: app.kind === 'backup' ? 'required' : 'stores' })
    context.setLogLevel(config.logLevel)
    const { logger } = context
    for (const warning of config.warnings) logger.warn({ warning }, 'configuration warning')
    app.check(config)
    const { concurrency, healthPort, host } = config.workers[app.kind]

    const queues = [queueName(app.kind), queueName(app.kind, host)]
    const metrics = createMetrics()
    app.measure?.(metrics, config)
    const jobMetrics = createJobMetrics(metrics, queues)
    const producing = stack.use(connectRedis(config.redis, 'producer', logger))
    const queue = stack.use(new OperationQueue({ connection: producing, logger }))
    const connection = stack.use(connectRedis(config.redis, 'worker', logger))
    const workers = [undefined, host].map((own) =>
      startWorker({
        kind: app.kind,
        ...(own === undefined ? {} : { host: own }),
        connection: own === undefined ? connection : stack.use(connectRedis(config.redis, 'worker', logger)),
        concurrency,
        logger,
        metrics: jobMetrics,
        process: (job, jobContext) => app.process(job, { ...jobContext, config, host, queue }),
      }),
    )
    // Side by side: one queue that drains must not leave the other taking jobs.
    stack.defer(async () => {
      await Promise.all(workers.map((worker) => worker[Symbol.asyncDispose]()))
    })
    const health = stack.use(
      await startHealthServer({
        port: healthPort,
        metrics,
        checks: {
          redis: () => producing.checkReady(),
          worker: async () => {
            for (const worker of workers)
              if (!worker.isRunning()) throw new Error(`queue ${worker.queue} is not being served`)
          },
        },
      }),
    )
    stack.defer(() => health.beginShutdown())
    return { queues, concurrency, healthUrl: `http://${health.host}:${health.port}` }
  })
}
