import type { ServerFacts } from '@tidemark/postgres'
import type { RecordedServer } from '@tidemark/repository'

/** What the commit record says of the server: enough to choose a restore host, and nothing that a bucket's reader should not see. */
export function recordedServer(facts: ServerFacts, tablespaceOids: readonly string[]): RecordedServer {
  const { restoreMinima } = facts
  return {
    versionNum: facts.versionNum,
    version: facts.versionText,
    walSegmentBytes: facts.walSegmentBytes,
    blockBytes: facts.blockBytes,
    dataChecksums: facts.dataChecksums,
    minimumSettings: {
      max_connections: String(restoreMinima.maxConnections),
      max_worker_processes: String(restoreMinima.maxWorkerProcesses),
      max_wal_senders: String(restoreMinima.maxWalSenders),
      max_prepared_transactions: String(restoreMinima.maxPreparedTransactions),
      max_locks_per_transaction: String(restoreMinima.maxLocksPerTransaction),
    },
    preloadLibraries: [...(facts.sharedPreloadLibraries ?? [])],
    tablespaceOids: [...tablespaceOids],
  }
}
