/**
 * pino behind the kernel's Logger.
 *
 * Secrets travel as Redacted and print as [redacted] by themselves; the redaction here is the second
 * net, for keys that only ever name a secret.
 */
import type { Logger } from '@tidemark/kernel'
import { destination, pino, stdTimeFunctions } from 'pino'
import type { DestinationStream } from 'pino'

export interface LoggerOptions {
  /** The app: `api`, `worker-backup`, … */
  readonly name: string
  readonly level?: 'debug' | 'info' | 'warn' | 'error' | 'silent'
  readonly bindings?: Readonly<Record<string, unknown>>
  /** Default stderr: standard output belongs to results. A stream is for tests. */
  readonly to?: 'stderr' | 'stdout' | DestinationStream
}

const SECRET_KEYS = [
  'password',
  'secretAccessKey',
  'accessKeyId',
  'authorization',
  'cookie',
  'encryptionKey',
  'BACKUP_ENCRYPTION_KEY',
  'BACKUP_ENCRYPTION_KEY_OLD',
]
const PATHS = SECRET_KEYS.flatMap((key) => [key, `*.${key}`, `*.*.${key}`])

/** Writes are synchronous, so that the last line before a crash is not lost. */
export function createLogger({ name, level = 'info', bindings = {}, to = 'stderr' }: LoggerOptions): Logger {
  const stream = typeof to === 'string' ? destination({ fd: to === 'stdout' ? 1 : 2, sync: true }) : to
  return pino(
    {
      base: { app: name, pid: process.pid, ...bindings },
      level,
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: errorFields, error: errorFields },
      redact: { paths: PATHS, censor: '[redacted]' },
    },
    stream,
  )
}

/** code, retry, hint and facts of an OperationalError are as telling as its stack. */
function errorFields(error: unknown): unknown {
  if (!(error instanceof Error)) return error
  const { name, message, stack, cause } = error
  const { code, retry, hint, facts } = error as { code?: unknown; retry?: unknown; hint?: unknown; facts?: unknown }
  const detail = Object.fromEntries(
    Object.entries({ code, retry, hint, facts }).filter(([, value]) => value !== undefined),
  )
  return { type: name, message, ...detail, stack, ...(cause === undefined ? {} : { cause: errorFields(cause) }) }
}
