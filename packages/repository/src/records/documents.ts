/** The schemas of a repository's JSON documents: docs/repository-format.md, sections 6 to 8. */
import { z } from 'zod'
import { FORMAT_VERSION } from '@tidemark/crypto'
import { DocumentDamagedError, FormatVersionError } from '../errors.ts'
import { BACKUP_ID, CLUSTER_NAME } from '../layout.ts'

const id = z.string().regex(BACKUP_ID)
const sha256 = z.string().regex(/^[0-9a-f]{64}$/)
const lsn = z.string().regex(/^[0-9A-F]{1,8}\/[0-9A-F]{1,8}$/)
const time = z.iso.datetime()
const count = z.number().int().nonnegative()
const base64Key = z.string().regex(/^[A-Za-z0-9+/]{43}=$/)
const version = z.literal(FORMAT_VERSION)
/** Features a reader must know, beyond this version: none so far. A reader that meets another name refuses. */
const requires = z.array(z.string())

export const markerSchema = z.object({
  format: z.literal('tidemark-repository'),
  version,
  setId: id,
  repositoryId: id,
  createdAt: time,
  publicKey: base64Key,
  requires,
})
export type Marker = z.infer<typeof markerSchema>

export const beginSchema = z.object({
  format: z.literal('tidemark-begin'),
  version,
  backupId: id,
  operationId: z.string(),
  number: count,
  cluster: z.string().regex(CLUSTER_NAME),
  systemId: z.string(),
  startedAt: time,
  startLsn: lsn.nullable(),
  parents: z.array(id),
  host: z.string(),
  pid: count,
  requires,
})
export type Begin = z.infer<typeof beginSchema>

const decimal = z.string().regex(/^\d{1,10}$/)

const serverSchema = z.object({
  versionNum: count,
  version: z.string(),
  walSegmentBytes: count,
  blockBytes: count,
  dataChecksums: z.boolean(),
  /** What a restored server must have at least. No other setting is taken from a record. */
  minimumSettings: z.object({
    max_connections: decimal.exactOptional(),
    max_worker_processes: decimal.exactOptional(),
    max_wal_senders: decimal.exactOptional(),
    max_prepared_transactions: decimal.exactOptional(),
    max_locks_per_transaction: decimal.exactOptional(),
  }),
  preloadLibraries: z.array(z.string()),
  tablespaceOids: z.array(z.string()),
})
export type RecordedServer = z.infer<typeof serverSchema>

export const commitRecordSchema = z.object({
  format: z.literal('tidemark-backup'),
  version,
  backupId: id,
  operationId: z.string(),
  cluster: z.string().regex(CLUSTER_NAME),
  systemId: z.string().regex(/^\d{1,20}$/),
  setId: id,
  timeline: z.number().int().positive(),
  startLsn: lsn,
  stopLsn: lsn,
  startedAt: time,
  stoppedAt: time,
  /** Whatever a later version calls it: only an intact backup is a restorable point. */
  verdict: z.string().transform((verdict) => (verdict === 'intact' ? 'intact' : 'damaged')),
  /** What the server said about the damage; empty for an intact backup. */
  damage: z.array(z.string()),
  parents: z.array(id),
  server: serverSchema,
  wal: z.object({ first: z.string(), last: z.string(), segments: count }),
  totals: z.object({
    files: count,
    directories: count,
    links: count,
    bytes: count,
    /** Own packs and file list. */
    storedBytes: count,
    packs: count,
    /** Bytes in packs of earlier backups or attempts, which this one shares. */
    sharedBytes: count,
    /** Links and special files that the server did not send. */
    skipped: count,
  }),
  packTable: z.object({ bytes: count, sha256 }),
  keyring: z.object({ name: z.string(), sha256 }),
  dataKeys: z.array(z.string().regex(/^[0-9a-f]{32}$/)),
  writer: z.object({ version: z.string(), host: z.string() }),
  requires,
})
export type CommitRecord = z.infer<typeof commitRecordSchema>

/** @throws {FormatVersionError} another version wrote it, or it needs a feature that this version does not know. */
export function checkVersion(value: unknown, what: string): void {
  const { version: found, requires: needed } = (value ?? {}) as { version?: unknown; requires?: unknown }
  if (typeof found === 'number' && found !== FORMAT_VERSION) throw new FormatVersionError(what, found, FORMAT_VERSION)
  if (!Array.isArray(needed)) return
  const [feature] = needed as unknown[]
  if (feature !== undefined) throw new FormatVersionError(what, FORMAT_VERSION, FORMAT_VERSION, JSON.stringify(feature))
}

/**
 * A document's value, held against its schema. Members that the schema does not have are ignored: what a reader must not ignore is in `requires`.
 *
 * @throws {FormatVersionError} another version wrote it: said before anything else about its shape.
 * @throws {DocumentDamagedError}
 */
export function parseDocument<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  checkVersion(value, what)
  const parsed = schema.safeParse(value)
  if (!parsed.success) {
    const [issue] = parsed.error.issues
    throw new DocumentDamagedError(what, `${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'wrong shape'}`)
  }
  return parsed.data
}

/** As parseDocument, for unsigned stored bytes. */
export function parseJsonDocument<T>(schema: z.ZodType<T>, bytes: Buffer, what: string): T {
  let value: unknown
  try {
    value = JSON.parse(bytes.toString('utf8'))
  } catch (cause) {
    throw new DocumentDamagedError(what, 'it is not JSON', cause)
  }
  return parseDocument(schema, value, what)
}
