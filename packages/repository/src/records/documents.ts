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

export const markerSchema = z.strictObject({
  format: z.literal('tidemark-repository'),
  version,
  setId: id,
  repositoryId: id,
  createdAt: time,
  publicKey: base64Key,
})
export type Marker = z.infer<typeof markerSchema>

const sealedObject = z.strictObject({
  name: z.string().regex(/^(pack|files)-\d{5,}$/),
  bytes: count,
  sha256,
  salt: sha256,
})
const packEntry = sealedObject.extend({ backup: id.optional() })
export type PackEntry = z.infer<typeof packEntry>
export type SealedObject = z.infer<typeof sealedObject>

export const packTableSchema = z.strictObject({
  format: z.literal('tidemark-packs'),
  version,
  backupId: id,
  packs: z.array(packEntry),
  fileList: z.array(sealedObject).min(1),
  wal: z.array(z.string().regex(/^wal\/[0-9A-F]{8}\/[0-9A-F]{8}\/[0-9A-F]{24}-[0-9a-f]{32}$/)),
  history: z.array(z.string().regex(/^wal\/[0-9A-F]{8}\.history-[0-9a-f]{32}$/)),
})
export type PackTable = z.infer<typeof packTableSchema>

export const beginSchema = z.strictObject({
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
})
export type Begin = z.infer<typeof beginSchema>

const serverSchema = z.strictObject({
  versionNum: count,
  version: z.string(),
  walSegmentBytes: count,
  blockBytes: count,
  dataChecksums: z.boolean(),
  /** The settings a restored server must have at least: max_connections and its kind. */
  minimumSettings: z.record(z.string(), z.string()),
  preloadLibraries: z.array(z.string()),
  tablespaceOids: z.array(z.string()),
})
export type RecordedServer = z.infer<typeof serverSchema>

export const commitRecordSchema = z.strictObject({
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
  verdict: z.enum(['intact', 'damaged']),
  /** What the server said about the damage; empty for an intact backup. */
  damage: z.array(z.string()),
  parents: z.array(id),
  server: serverSchema,
  wal: z.strictObject({ first: z.string(), last: z.string(), segments: count }),
  totals: z.strictObject({
    files: count,
    directories: count,
    links: count,
    bytes: count,
    storedBytes: count,
    packs: count,
  }),
  packTable: z.strictObject({ bytes: count, sha256 }),
  keyring: z.strictObject({ name: z.string(), sha256 }),
  dataKeys: z.array(z.string().regex(/^[0-9a-f]{32}$/)),
  writer: z.strictObject({ version: z.string(), host: z.string() }),
})
export type CommitRecord = z.infer<typeof commitRecordSchema>

/**
 * A document's value, held against its schema.
 *
 * @throws {FormatVersionError} another version wrote it: said before anything else about its shape.
 * @throws {DocumentDamagedError}
 */
export function parseDocument<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  const found = (value as { version?: unknown } | null)?.version
  if (typeof found === 'number' && found !== FORMAT_VERSION) throw new FormatVersionError(what, found, FORMAT_VERSION)
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
