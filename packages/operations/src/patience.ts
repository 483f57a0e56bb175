import type { S3Options } from '@tidemark/storage'

/** How long the source may be silent. */
export interface ServerPatience {
  /** For TCP, TLS and login together; 10 s by default. */
  readonly connectTimeoutMs?: number
  /** Between two bytes of the copy or of the WAL stream; 60 s by default. */
  readonly idleTimeoutMs?: number
  /** Without new WAL once the copy has ended; 30 s by default. */
  readonly stallTimeoutMs?: number
}

/** How long others may be silent before an operation gives them up, where the defaults are not meant. */
export interface Patience {
  readonly server?: ServerPatience
  /** Of S3 repositories. */
  readonly store?: Pick<S3Options, 'timing' | 'retry'>
}
