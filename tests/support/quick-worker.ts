/** A worker process like those of `apps/`, which notices within seconds what they notice within a minute: dead workers, silent servers. */
import { writeSync } from 'node:fs'
import { loadConfig } from '@tidemark/config'
import { type Logger, systemClock } from '@tidemark/kernel'
import { backupCluster, copyConfigured, restoreConfigured, sweepConfigured } from '@tidemark/operations'
import { connectRedis, startWorker } from '@tidemark/queue'
import { SHORT_PATIENCE } from './operate.ts'

/** To standard error, for the evidence. */
function loggerWith(bound: object): Logger {
  const say = (facts: object, message: string): void => {
    process.stderr.write(`${new Date().toISOString()} ${message} ${JSON.stringify({ ...bound, ...facts })}\n`)
  }
  return {
    debug: () => {},
    info: say,
    warn: say,
    error: say,
    child: (bindings) => loggerWith({ ...bound, ...bindings }),
  }
}

const config = loadConfig()
const logger = loggerWith({})
const quick = { lockDurationMs: 2000, stalledIntervalMs: 500, drainMs: 500, logger }
const deps = { config, clock: systemClock, patience: SHORT_PATIENCE }
const workers = [
  startWorker({
    ...quick,
    kind: 'backup',
    connection: connectRedis(config.redis, 'worker', logger),
    process: ({ cluster, operationId, requestedAt, options }, { signal, progress, logger }) =>
      backupCluster(
        { cluster, operationId, requestedAt: new Date(requestedAt), options },
        { ...deps, logger, signal, progress },
      ),
  }),
  startWorker({
    ...quick,
    kind: 'restore',
    connection: connectRedis(config.redis, 'worker', logger),
    process: ({ cluster, backupId, targetDirectory, profile, mode }, { signal, progress, logger }) =>
      restoreConfigured(
        {
          backup: backupId,
          cluster,
          repository: undefined,
          targetDirectory,
          profile,
          owner: undefined,
          allowDamaged: false,
          mode,
        },
        { ...deps, logger, signal, progress },
      ),
  }),
  startWorker({
    ...quick,
    kind: 'maintenance',
    connection: connectRedis(config.redis, 'worker', logger),
    process: ({ cluster, task }, { signal, progress, logger }) => {
      const running = { ...deps, logger, signal, progress }
      if (task.verb === 'sweep')
        return sweepConfigured({ repositories: task.repositories, cluster, dryRun: task.dryRun }, running)
      return copyConfigured({ from: task.from, to: task.to, backup: task.backupId, cluster }, running)
    },
  }),
]
await Promise.all(workers.map((worker) => worker.ready()))
writeSync(1, `${JSON.stringify({ ready: true })}\n`)
