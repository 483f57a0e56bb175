import { OperationalError } from '@tidemark/kernel'
import { connect } from './connection.ts'
import type { ConnectionTarget } from './connection-target.ts'
import {
  AuthenticationFailedError,
  ReplicationRightMissingError,
  StandbyRefusedError,
  WalSendersExhaustedError,
} from './errors.ts'
import { judgeReading, judgeVersion, type Finding } from './preflight-checks.ts'
import { readServer, readVersionNum, type ServerReading } from './read-server.ts'
import { connectReplication, type SystemIdentity } from './replication-connection.ts'
import type { ServerFacts } from './server-facts.ts'

/** Something has to be changed on the server first. All of it is named at once, each with its remedy. */
export class PreflightFailedError extends OperationalError {
  override readonly code = 'PG_PREFLIGHT_FAILED'
  override readonly retry = 'after-operator'
  /** Failures first, then warnings. */
  readonly findings: readonly Finding[]
  constructor(findings: readonly Finding[], cause?: unknown) {
    const failures = findings.filter(({ level }) => level === 'failure')
    super(`the server is not ready for backups: ${failures.map(({ message }) => message).join('; ')}`, {
      hint: failures.map(({ remedy }) => remedy).join('\n'),
      facts: { findings },
      cause,
    })
    this.findings = [...failures, ...findings.filter(({ level }) => level === 'warning')]
  }
}

export interface PreflightOptions {
  /** Whether WAL is streamed beside the backup: two walsenders and a slot instead of one walsender. */
  readonly needWal: boolean
}

export interface PreflightResult extends ServerFacts {
  /** What does not stop a backup but should be known. */
  readonly warnings: readonly Finding[]
}

/**
 * Whether a base backup can be taken from this server, and everything worth knowing about it.
 *
 * @throws {DatabaseUnreachableError}
 * @throws {AuthenticationFailedError} the SQL login itself is refused.
 * @throws {StandbyRefusedError} the node is in recovery; its settings say nothing about the primary.
 * @throws {ServerMismatchError} the login for replication reached another server.
 * @throws {PreflightFailedError} with every failing finding.
 */
export async function preflight(
  target: ConnectionTarget,
  options: PreflightOptions,
  signal: AbortSignal,
): Promise<PreflightResult> {
  await using sql = await connect(target, signal)
  const versionFinding = judgeVersion(await readVersionNum(sql))
  if (versionFinding !== undefined) throw new PreflightFailedError([versionFinding])
  const askedAtMs = Date.now()
  const reading = await readServer(sql)
  if (reading.inRecovery) throw new StandbyRefusedError({ host: target.host, port: target.port })
  const clockSkewMs = Math.round(reading.serverTimeMs - askedAtMs)
  const findings = judgeReading(reading, { ...options, clockSkewMs })
  const attempt = await tryReplication(target, reading, findings, signal)
  if (attempt.finding !== undefined) findings.push(attempt.finding)
  if (findings.some(({ level }) => level === 'failure') || attempt.identity === undefined) {
    throw new PreflightFailedError(findings, attempt.error)
  }
  return { ...factsFrom(reading, attempt.identity, clockSkewMs), warnings: findings }
}

interface ReplicationAttempt {
  readonly identity?: SystemIdentity
  readonly finding?: Finding
  readonly error?: Error
}

/** pg_hba.conf cannot be evaluated from outside: log in as a walsender and see. */
async function tryReplication(
  target: ConnectionTarget,
  reading: ServerReading,
  found: readonly Finding[],
  signal: AbortSignal,
): Promise<ReplicationAttempt> {
  try {
    await using replication = await connectReplication(target, signal)
    return { identity: await replication.requirePrimary(reading.systemId, 'the replication login') }
  } catch (error) {
    const { role } = reading
    if (error instanceof AuthenticationFailedError) {
      const finding: Finding = {
        check: 'pg-hba-replication',
        level: 'failure',
        message: `pg_hba.conf lets role ${role} in for SQL but not for replication`,
        remedy: `-- in pg_hba.conf: host replication ${role} <address of this host>/32 scram-sha-256\nSELECT pg_reload_conf();`,
      }
      return { finding, error }
    }
    // Named already by what was read, unless somebody changed it between the two looks.
    if (error instanceof ReplicationRightMissingError)
      return { error, ...unlessFound(found, 'replication-right', error) }
    if (error instanceof WalSendersExhaustedError) return { error, ...unlessFound(found, 'max-wal-senders', error) }
    throw error
  }
}

function unlessFound(
  found: readonly Finding[],
  check: Finding['check'],
  error: OperationalError,
): { finding?: Finding } {
  if (found.some((finding) => finding.check === check && finding.level === 'failure')) return {}
  return { finding: { check, level: 'failure', message: error.message, remedy: error.hint } }
}

function factsFrom(reading: ServerReading, identity: SystemIdentity, clockSkewMs: number): ServerFacts {
  const { settings } = reading
  const text = (name: string): string => settings.get(name) ?? ''
  const count = (name: string): number => Number(text(name))
  const path = <Key extends string>(key: Key, name: string): { [K in Key]?: string } =>
    text(name) === '' ? {} : ({ [key]: text(name) } as { [K in Key]: string })
  const libraries = settings.get('shared_preload_libraries')
  return {
    systemId: identity.systemId,
    versionNum: count('server_version_num'),
    versionText: reading.versionText,
    timeline: identity.timeline,
    dataChecksums: text('data_checksums') === 'on',
    walSegmentBytes: count('wal_segment_size'),
    blockBytes: count('block_size'),
    restoreMinima: {
      maxConnections: count('max_connections'),
      maxWorkerProcesses: count('max_worker_processes'),
      maxWalSenders: count('max_wal_senders'),
      maxPreparedTransactions: count('max_prepared_transactions'),
      maxLocksPerTransaction: count('max_locks_per_transaction'),
    },
    paths: {
      ...path('dataDirectory', 'data_directory'),
      ...path('configFile', 'config_file'),
      ...path('hbaFile', 'hba_file'),
      ...path('identFile', 'ident_file'),
    },
    ...(libraries === undefined ? {} : { sharedPreloadLibraries: splitList(libraries) }),
    databases: reading.databases,
    tablespaces: reading.tablespaces,
    ...(reading.totalBytes === undefined ? {} : { totalBytes: reading.totalBytes }),
    maxSlotWalKeepMiB: count('max_slot_wal_keep_size'),
    synchronousStandbyNames: text('synchronous_standby_names'),
    clockSkewMs,
  }
}

function splitList(text: string): string[] {
  return text
    .split(',')
    .map((name) => name.trim().replace(/^"(.*)"$/, '$1'))
    .filter((name) => name !== '')
}
