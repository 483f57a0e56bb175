/**
 * The pack table: every object of a backup, with what is needed to verify it without a key. Format: section 7.
 *
 * One JSON text a line, so that neither side needs the whole of it at once, however many packs there are.
 */
import { z } from 'zod'
import { FORMAT_VERSION } from '@tidemark/crypto'
import { DocumentDamagedError } from '../errors.ts'
import { BACKUP_ID } from '../layout.ts'
import { checkVersion } from './documents.ts'

const backupId = z.string().regex(BACKUP_ID)
const sha256 = z.string().regex(/^[0-9a-f]{64}$/)
const count = z.number().int().nonnegative()

const sealedObject = z.strictObject({ name: z.string(), bytes: count, sha256, salt: sha256 })
const packEntry = sealedObject.extend({ name: z.string().regex(/^pack-\d{5,}$/), backup: backupId.optional() })
const listEntry = sealedObject.extend({ name: z.string().regex(/^files-\d{5,}$/) })
const sourceEntry = sealedObject.extend({
  name: z.literal('source'),
  streamId: z.string().regex(/^[0-9a-f]{32}$/),
})
export type PackEntry = z.infer<typeof packEntry>
export type SealedObject = z.infer<typeof sealedObject>
export type SourceEntry = z.infer<typeof sourceEntry>

export interface PackTable {
  readonly backupId: string
  readonly packs: readonly PackEntry[]
  readonly fileList: readonly SealedObject[]
  readonly source: SourceEntry
  /** Names relative to the cluster's folder. */
  readonly wal: readonly string[]
  readonly history: readonly string[]
}

const head = z.strictObject({
  format: z.literal('tidemark-packs'),
  version: z.literal(FORMAT_VERSION),
  backupId,
})
const line = z.union([
  z.strictObject({ pack: packEntry }),
  z.strictObject({ fileList: listEntry }),
  z.strictObject({ source: sourceEntry }),
  z.strictObject({ wal: z.string().regex(/^wal\/[0-9A-F]{8}\/[0-9A-F]{8}\/[0-9A-F]{24}-[0-9a-f]{32}$/) }),
  z.strictObject({ history: z.string().regex(/^wal\/[0-9A-F]{8}\.history-[0-9a-f]{32}$/) }),
  z.strictObject({ end: count }),
])
type Line = z.infer<typeof line>

export function encodePackTable(table: PackTable): Buffer {
  const lines: object[] = [
    { format: 'tidemark-packs', version: FORMAT_VERSION, backupId: table.backupId },
    ...table.packs.map((pack): Line => ({ pack })),
    ...table.fileList.map((fileList): Line => ({ fileList })),
    { source: table.source } satisfies Line,
    ...table.wal.map((wal): Line => ({ wal })),
    ...table.history.map((history): Line => ({ history })),
  ]
  lines.push({ end: lines.length - 1 } satisfies Line)
  return Buffer.from(lines.map((text) => `${JSON.stringify(text)}\n`).join(''))
}

/** @throws {FormatVersionError} @throws {DocumentDamagedError} */
export function decodePackTable(bytes: Buffer, what: string): PackTable {
  const packs: PackEntry[] = []
  const fileList: SealedObject[] = []
  const wal: string[] = []
  const history: string[] = []
  let source: SourceEntry | undefined
  let id: string | undefined
  let entries = 0
  let ended = false
  for (const text of linesOf(bytes, what)) {
    if (id === undefined) {
      checkVersion(text, what)
      id = parse(head, text, what).backupId
      continue
    }
    if (ended) throw new DocumentDamagedError(what, 'there are lines after its end')
    const entry = parse(line, text, what)
    if ('pack' in entry) packs.push(entry.pack)
    else if ('fileList' in entry) fileList.push(entry.fileList)
    else if ('source' in entry) source = entry.source
    else if ('wal' in entry) wal.push(entry.wal)
    else if ('history' in entry) history.push(entry.history)
    else {
      if (entry.end !== entries) throw new DocumentDamagedError(what, `it has ${entries} entries and says ${entry.end}`)
      ended = true
    }
    entries += 1
  }
  if (id === undefined || source === undefined || fileList.length === 0 || !ended)
    throw new DocumentDamagedError(what, 'it is cut short')
  return { backupId: id, packs, fileList, source, wal, history }
}

function* linesOf(bytes: Buffer, what: string): Generator {
  let at = 0
  while (at < bytes.length) {
    const end = bytes.indexOf(0x0a, at)
    if (end === -1) throw new DocumentDamagedError(what, 'its last line is cut short')
    try {
      yield JSON.parse(bytes.toString('utf8', at, end))
    } catch (cause) {
      throw new DocumentDamagedError(what, `byte ${at}: it is not JSON`, cause)
    }
    at = end + 1
  }
}

function parse<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  throw new DocumentDamagedError(what, `${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'wrong shape'}`)
}
