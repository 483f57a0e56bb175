import type { Redacted } from '@tidemark/kernel'
import type { ConnectionOptions as TlsOptions } from 'node:tls'

/** Where a server listens and who asks. Environment variables and ~/.pgpass are never consulted. */
export interface ConnectionTarget {
  /** Name, address, or a directory (leading `/`) that holds the Unix socket. */
  readonly host: string
  readonly port: number
  readonly user: string
  readonly password?: Redacted<string> | undefined
  /** `postgres` by default; a replication connection ignores it. */
  readonly database?: string | undefined
  /** false (default): plain TCP. true: TLS, certificate checked against the system's CAs. */
  readonly ssl?: boolean | TlsOptions | undefined
  /** Shown in pg_stat_activity and pg_stat_replication; `tidemark_<cluster>` for WAL streams. */
  readonly applicationName?: string | undefined
  /** For TCP, TLS and login together; 10 s by default. */
  readonly connectTimeoutMs?: number | undefined
}

export const defaultConnectTimeoutMs = 10_000

export function databaseOf(target: ConnectionTarget): string {
  return target.database ?? 'postgres'
}
