/** fixtures/<version>/expected.json: what a reader must find in the repository beside it. */
export interface ExpectedBackup {
  readonly backupId: string
  readonly suite: string
  /** In the order of the file list; paths have one character per byte. */
  readonly files: readonly {
    readonly type: string
    readonly path: string
    readonly size: number
    readonly sha256: string
  }[]
  /** SHA-256 of each WAL segment, in order. */
  readonly wal: readonly string[]
  readonly history: readonly string[]
}

export interface Expected {
  readonly setId: string
  readonly publicKey: string
  readonly backups: readonly ExpectedBackup[]
}
