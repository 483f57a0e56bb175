/** Restores into directories of this host. A restore runs once: doing it again is a new operation that somebody asks for. */
import { KeyMissingError } from '@tidemark/crypto'
import { systemClock } from '@tidemark/kernel'
import { restoreConfigured } from '@tidemark/operations'
import { runWorkerApp } from '@tidemark/queue'

await runWorkerApp({
  name: 'worker-restore',
  kind: 'restore',
  check: ({ encryption }) => {
    if (encryption.key === undefined) throw new KeyMissingError('a restore worker')
  },
  process: ({ operationId: _id, requestedAt: _at, host: _host, backupId, ...wishes }, context) => {
    const { config, host, logger, signal, progress } = context
    return restoreConfigured(
      { ...wishes, repository: wishes.repository, backup: backupId, owner: undefined, allowDamaged: false },
      { config, host, clock: systemClock, logger, signal, progress },
    )
  },
})
