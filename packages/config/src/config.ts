/** What the rest of Tidemark sees: validated, with defaults, secrets wrapped, frozen all the way down. */
import type { Redacted } from '@tidemark/kernel'
import type { LOG_LEVELS } from './schema.ts'

export interface ClusterNode {
  readonly host: string
  readonly port: number
}

/** A program of the operator's that a worker runs around a backup, without a shell. */
export interface HookConfig {
  /** Absolute path. */
  readonly command: string
  readonly args: readonly string[]
  readonly timeoutMs: number
}

export interface ClusterConfig {
  readonly name: string
  readonly nodes: readonly [ClusterNode, ...ClusterNode[]]
  readonly user: string
  readonly password?: Redacted<string>
  readonly database: string
  readonly ssl: 'disable' | 'require' | 'verify-full'
  readonly caFile?: string
  /** How this cluster's backups are taken where a request does not say: its own settings, else those of the section `backup`. */
  readonly backup: {
    readonly checkpoint: 'fast' | 'spread'
    readonly compressionLevel: number
    /** Of what the server sends, in KiB a second; absent: as fast as it goes. */
    readonly maxRateKiB?: number
  }
  readonly hooks: { readonly before?: HookConfig; readonly after?: HookConfig }
  /** Names of the cluster's repositories, in the file's order; never empty. */
  readonly repositories: readonly [string, ...string[]]
}

export interface FileRepositoryConfig {
  readonly kind: 'file'
  readonly name: string
  readonly url: string
  /** Decoded absolute path of `url`. */
  readonly directory: string
  /** The host whose disk this is; absent when `shared`. */
  readonly host?: string
  readonly shared: boolean
  readonly required: boolean
}

export interface S3RepositoryConfig {
  readonly kind: 's3'
  readonly name: string
  readonly url: string
  readonly bucket: string
  /** Without slashes at either end; '' for the bucket's root. */
  readonly prefix: string
  readonly endpoint?: string
  readonly region?: string
  /** Absent: the AWS SDK's own chain (environment, profile, instance role) decides. */
  readonly accessKeyId?: Redacted<string>
  readonly secretAccessKey?: Redacted<string>
  /** Absent: path style with an endpoint, host style without. */
  readonly forcePathStyle?: boolean
  readonly caFile?: string
  readonly required: boolean
}

export type RepositoryConfig = FileRepositoryConfig | S3RepositoryConfig

export interface WorkerConfig {
  readonly concurrency: number
  readonly healthPort: number
  readonly host: string
}

export interface Config {
  /** The file it was read from. */
  readonly path: string
  readonly clusters: Readonly<Record<string, ClusterConfig>>
  readonly repositories: Readonly<Record<string, RepositoryConfig>>
  readonly encryption: {
    readonly suite: 'aes-256-cbc-hmac-sha-256' | 'aes-256-gcm'
    /** Base64 of the 32 raw bytes of the pinned Ed25519 key. */
    readonly publicKey?: string
    /** 32 bytes, from BACKUP_ENCRYPTION_KEY; absent when it is not set. */
    readonly key?: Redacted<Buffer>
    /** From BACKUP_ENCRYPTION_KEY_OLD, newest first as written there. */
    readonly oldKeys: readonly Redacted<Buffer>[]
  }
  readonly backup: {
    readonly compressionLevel: number
    readonly threads: number
    readonly uploads: number
    readonly packBytes: number
    readonly checkpoint: 'fast' | 'spread'
    readonly maxRateKiB?: number | undefined
  }
  readonly redis: {
    /** Without user or password. */
    readonly url: string
    readonly username?: string
    readonly password?: Redacted<string>
    readonly prefix: string
  }
  readonly api: { readonly host: string; readonly port: number; readonly healthPort: number }
  readonly workers: {
    readonly backup: WorkerConfig
    readonly verify: WorkerConfig
    readonly restore: WorkerConfig
    readonly maintenance: WorkerConfig
  }
  readonly logLevel: (typeof LOG_LEVELS)[number]
  /** Legal but unwise; the application logs them once. */
  readonly warnings: readonly string[]
}
