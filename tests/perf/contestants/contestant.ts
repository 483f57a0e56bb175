import type { TestPostgres, TestS3 } from '@tidemark/testkit'
import type { Command } from '../meter.ts'

/** What every contestant works on. */
export interface Arena {
  readonly server: TestPostgres
  readonly s3: TestS3
  /** For repositories, configuration and copies; removed at the end. */
  readonly folder: string
  readonly cores: number
}

/** A way to back up the server and to get it back. Commands are whole processes: their start counts. */
export interface Contestant {
  readonly name: string
  /** Version and settings, for the report. */
  readonly about: string
  /** Puts the repository into the state before a first full backup. Not measured. */
  readonly reset: () => Promise<void>
  readonly backup: Command
  /** Of the backup taken last, without what the tool keeps beside it. */
  readonly storedBytes: () => Promise<number>
  /** Restores the backup taken last into an empty directory and makes it durable. */
  readonly restore: (target: string) => Command
  readonly env: NodeJS.ProcessEnv
}
