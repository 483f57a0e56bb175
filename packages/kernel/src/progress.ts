/** What a long operation reports while it runs. Every field is a total so far, never a delta. */
export interface Progress {
  /** A word for the present step: 'preflight', 'copy', 'wal', 'commit', 'fetch', 'sync', … */
  readonly phase: string
  /** Plaintext bytes done in this phase. */
  readonly bytesDone: number
  /** Expected plaintext bytes of this phase; an estimate for a running cluster. Absent when unknown. */
  readonly bytesTotal?: number
  /** Bytes written to each repository so far (after compression and encryption). */
  readonly bytesStored?: number
  readonly files?: number
}

export type ReportProgress = (progress: Progress) => void
