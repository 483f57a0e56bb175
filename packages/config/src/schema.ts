/** The shape of tidemark.yaml, before secrets are looked up. */
import { availableParallelism, hostname } from 'node:os'
import { createPublicKey } from 'node:crypto'
import { MiB, isLoopback } from '@tidemark/kernel'
import { clusterNameSchema, compressionLevelSchema, hostNameSchema, repositoryNameSchema } from '@tidemark/contracts'
import { z } from 'zod'
import {
  absoluteFileField,
  byteSize,
  hostField,
  listenPortField,
  portField,
  secretReferenceField,
  section,
  wholeNumber,
} from './fields.ts'

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error', 'silent'] as const
export const logLevelField = z.enum(LOG_LEVELS, { error: `one of ${LOG_LEVELS.join(', ')}` })

const checkpointField = z.enum(['fast', 'spread'], { error: 'fast or spread' })
/** The server's own limits (MAX_RATE of BASE_BACKUP). */
const maxRateField = wholeNumber(32, 1_048_576)

const hookField = section({
  command: absoluteFileField,
  args: z.array(z.string(), { error: 'a list of texts' }).default([]),
  timeoutSeconds: wholeNumber(1, 86_400).default(60),
})

const clusterField = section({
  nodes: z
    .array(section({ host: hostField, port: portField.default(5432) }), { error: 'a list of { host, port }' })
    .min(1, { error: 'at least one { host, port }' }),
  user: z.string().min(1).max(63).default('tidemark'),
  password: secretReferenceField.optional(),
  /** Only the place to connect to; a base backup always holds the whole cluster. */
  database: z.string().min(1).max(63).default('postgres'),
  ssl: z
    .enum(['disable', 'require', 'verify-full'], { error: 'one of disable, require, verify-full' })
    .default('disable'),
  caFile: absoluteFileField.optional(),
  backup: section({
    checkpoint: checkpointField.optional(),
    compressionLevel: compressionLevelSchema.optional(),
    maxRateKiB: maxRateField.optional(),
  }).prefault({}),
  hooks: section({ before: hookField.optional(), after: hookField.optional() }).prefault({}),
  repositories: z
    .array(repositoryNameSchema, { error: 'a list of repository names' })
    .min(1, { error: 'at least one repository; leave the key out for all' })
    .optional(),
}).check((context) => {
  if (context.value.caFile !== undefined && context.value.ssl === 'disable') {
    context.issues.push({
      code: 'custom',
      input: context.value.ssl,
      path: ['ssl'],
      message: "'require' or 'verify-full', since caFile is given",
    })
  }
})

const FILE_URL = /^file:\/\/(\/[^?#]+)$/
const S3_URL = /^s3:\/\/[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?:\/[^?#]*)?$/

const repositoryField = section({
  url: z
    .string({ error: 'file:///absolute/path or s3://bucket/prefix' })
    .refine((url) => FILE_URL.test(url) || S3_URL.test(url), {
      error: 'file:///absolute/path or s3://bucket/prefix',
    }),
  /** file only: the one host whose disk this is … */
  host: hostNameSchema.optional(),
  /** … or: every worker sees the same files under this path. */
  shared: z.literal(true, { error: 'true, or leave the key out' }).optional(),
  /** s3 only, like the rest below. */
  endpoint: z.url({ protocol: /^https?$/, error: 'an address like https://s3.example.net' }).optional(),
  region: z.string().min(1).optional(),
  accessKeyId: secretReferenceField.optional(),
  secretAccessKey: secretReferenceField.optional(),
  forcePathStyle: z.boolean().optional(),
  caFile: absoluteFileField.optional(),
  /** A run succeeds only when every required repository has it. */
  required: z.boolean({ error: 'true or false' }).default(true),
}).check((context) => {
  const { url, host, shared, accessKeyId, secretAccessKey } = context.value
  const complain = (key: string, message: string): void => {
    context.issues.push({ code: 'custom', input: undefined, path: [key], message })
  }
  if (url.startsWith('file:')) {
    if ((host === undefined) === (shared === undefined)) {
      complain('host', 'a file repository names either its host, or shared: true when every worker sees the same files')
    }
    for (const key of ['endpoint', 'region', 'accessKeyId', 'secretAccessKey', 'forcePathStyle', 'caFile'] as const) {
      if (context.value[key] !== undefined) complain(key, 'only for s3:// repositories; remove it')
    }
    return
  }
  if (host !== undefined) complain('host', 'only for file:// repositories; remove it')
  if (shared !== undefined) complain('shared', 'only for file:// repositories; remove it')
  if ((accessKeyId === undefined) !== (secretAccessKey === undefined)) {
    complain(
      accessKeyId === undefined ? 'accessKeyId' : 'secretAccessKey',
      'both accessKeyId and secretAccessKey, or neither',
    )
  }
})

const publicKeyField = z.string().transform((text, context) => {
  const raw = ed25519PublicKey(text.trim())
  if (raw) return raw.toString('base64')
  context.addIssue({ code: 'custom', message: 'an Ed25519 public key: base64 of 32 bytes, or PEM' })
  return z.NEVER
})

function ed25519PublicKey(text: string): Buffer | undefined {
  if (/^[A-Za-z0-9+/]{43}=$/.test(text)) return Buffer.from(text, 'base64')
  try {
    const key = createPublicKey(text)
    if (key.asymmetricKeyType !== 'ed25519') return undefined
    // SubjectPublicKeyInfo of Ed25519 ends with the 32 key bytes (RFC 8410).
    return key.export({ format: 'der', type: 'spki' }).subarray(-32)
  } catch {
    return undefined
  }
}

const redisUrlField = z.string().transform((text, context) => {
  const accepted = 'an address like redis://127.0.0.1:6379/0 or rediss://… for TLS'
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (!url || !/^rediss?:$/.test(url.protocol) || url.hostname === '' || !/^(?:\/\d*)?$/.test(url.pathname)) {
    context.addIssue({ code: 'custom', message: accepted })
    return z.NEVER
  }
  return text
})

function workerField(healthPort: number) {
  return section({
    concurrency: wholeNumber(1, 64).default(1),
    /** Loopback port of /livez, /readyz and /metrics. */
    healthPort: listenPortField.default(healthPort),
    /** What this host calls itself; it serves the queue `<kind>.<host>` beside the shared one. */
    host: hostNameSchema.default(() => hostname()),
  }).prefault({})
}

export const fileSchema = section({
  clusters: z.record(clusterNameSchema, clusterField, { error: 'a map of cluster names' }).default({}),
  repositories: z.record(repositoryNameSchema, repositoryField, { error: 'a map of repository names' }).default({}),
  encryption: section({
    suite: z
      .enum(['aes-256-cbc-hmac-sha-256', 'aes-256-gcm'], { error: 'aes-256-cbc-hmac-sha-256 or aes-256-gcm' })
      .default('aes-256-cbc-hmac-sha-256'),
    publicKey: publicKeyField.optional(),
  }).prefault({}),
  backup: section({
    compressionLevel: compressionLevelSchema.default(1),
    threads: wholeNumber(1, 64).default(() => Math.min(4, availableParallelism())),
    /** Packs on their way to one repository at a time. */
    uploads: wholeNumber(1, 16).default(2),
    packBytes: byteSize(MiB, 512 * MiB, 'a size, 1MiB to 512MiB, like 16MiB').default(16 * MiB),
    checkpoint: checkpointField.default('fast'),
    maxRateKiB: maxRateField.optional(),
  }).prefault({}),
  redis: section({
    url: redisUrlField.default('redis://127.0.0.1:6379'),
    password: secretReferenceField.optional(),
    /** The braces keep all keys in one slot of a Redis Cluster. */
    prefix: z
      .string()
      .regex(/^\{[A-Za-z0-9._-]{1,40}\}$/, { error: 'a name in braces, like {tidemark}' })
      .default('{tidemark}'),
  }).prefault({}),
  api: section({
    host: z
      .string()
      .refine(isLoopback, {
        error:
          'a loopback address (127.0.0.1, ::1, localhost): this API has no access control yet, so it must not be reachable from other machines; use an SSH tunnel',
      })
      .default('127.0.0.1'),
    port: listenPortField.default(8080),
    /** Loopback port of /metrics. */
    healthPort: listenPortField.default(9310),
  }).prefault({}),
  workers: section({
    backup: workerField(9311),
    verify: workerField(9312),
    restore: workerField(9313),
    maintenance: workerField(9314),
  }).prefault({}),
  logLevel: logLevelField.default('info'),
})

export type ConfigFile = z.infer<typeof fileSchema>
