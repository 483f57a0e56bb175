/** What a server is, read once before a backup and kept with it: the restore needs most of it. */
export interface ServerFacts {
  /** 64 bits, as a decimal string. */
  readonly systemId: string
  /** 150008 for 15.8. */
  readonly versionNum: number
  readonly versionText: string
  readonly timeline: number
  readonly dataChecksums: boolean
  readonly walSegmentBytes: number
  /** BLCKSZ. */
  readonly blockBytes: number
  /** A restored server refuses to start in recovery with less than these (CheckRequiredParameterValues, xlogrecovery.c). */
  readonly restoreMinima: RestoreMinima
  /** Absent where the role may not read them (pg_read_all_settings). */
  readonly paths: {
    readonly dataDirectory?: string
    readonly configFile?: string
    readonly hbaFile?: string
    readonly identFile?: string
  }
  /** Libraries that must be installed where this cluster is restored. Absent when not readable. */
  readonly sharedPreloadLibraries?: readonly string[]
  readonly databases: readonly DatabaseFacts[]
  readonly tablespaces: readonly TablespaceFacts[]
  /** Sum of pg_database_size; absent when the role may not see every database, or it took too long. */
  readonly totalBytes?: number
  /** -1: WAL is kept for slots without limit; else a slot that falls further behind is invalidated. */
  readonly maxSlotWalKeepMiB: number
  readonly synchronousStandbyNames: string
  /** Server clock minus ours. */
  readonly clockSkewMs: number
}

export interface RestoreMinima {
  readonly maxConnections: number
  readonly maxWorkerProcesses: number
  readonly maxWalSenders: number
  readonly maxPreparedTransactions: number
  readonly maxLocksPerTransaction: number
}

export interface DatabaseFacts {
  readonly oid: number
  readonly name: string
  readonly encoding: string
  /** c: libc, i: ICU, b: builtin. */
  readonly localeProvider: string
  readonly collate: string
  readonly ctype: string
  readonly icuLocale?: string
  /** The collation library's version when the database was made: another one on the restore host breaks indexes. */
  readonly collationVersion?: string
}

export interface TablespaceFacts {
  readonly oid: number
  readonly name: string
  readonly location: string
}
