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
import { PackList } from './pack-list.ts'
import { WalList } from './wal-list.ts'

const LINE_FEED = 0x0a

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
  readonly packs: PackList
  readonly fileList: readonly SealedObject[]
  readonly source: SourceEntry
  /** Names relative to the cluster's folder, ascending. */
  readonly wal: WalList
  readonly history: readonly string[]
}

const head = z.strictObject({
  format: z.literal('tidemark-packs'),
  version: z.literal(FORMAT_VERSION),
  backupId,
})
/** By the one member that a line has. */
const lines = {
  pack: z.strictObject({ pack: packEntry }),
  fileList: z.strictObject({ fileList: listEntry }),
  source: z.strictObject({ source: sourceEntry }),
  wal: z.strictObject({ wal: z.string() }),
  history: z.strictObject({ history: z.string().regex(/^wal\/[0-9A-F]{8}\.history-[0-9a-f]{32}$/) }),
  end: z.strictObject({ end: count }),
}
const ORDER = Object.keys(lines)
/** A pack's line has about 230 bytes, a source's 250. */
const LONGEST_LINE = 4096

/** The whole table in one buffer of just its size: it is one object, and is put as one. */
export function encodePackTable(table: PackTable): Buffer {
  let bytes = 0
  for (const text of linesOf(table)) bytes += text.length
  const encoded = Buffer.allocUnsafe(bytes)
  let at = 0
  for (const text of linesOf(table)) at += encoded.write(text, at, 'latin1')
  return encoded
}

function* linesOf(table: PackTable): Generator<string> {
  yield lineOf({ format: 'tidemark-packs', version: FORMAT_VERSION, backupId: table.backupId })
  for (const pack of table.packs) yield lineOf({ pack })
  for (const fileList of table.fileList) yield lineOf({ fileList })
  yield lineOf({ source: table.source })
  for (const wal of table.wal) yield lineOf({ wal })
  for (const history of table.history) yield lineOf({ history })
  const entries = table.packs.length + table.fileList.length + 1 + table.wal.length + table.history.length
  yield lineOf({ end: entries })
}

function lineOf(value: object): string {
  return `${JSON.stringify(value)}\n`
}

/** Reads a pack table as its bytes come, in pieces of any size. What it gives is to be believed once the SHA-256 of all of them held. */
export class PackTableDecoder {
  readonly #what: string
  readonly #packs = new PackList()
  readonly #fileList: SealedObject[] = []
  readonly #wal = new WalList()
  readonly #history: string[] = []
  #source: SourceEntry | undefined
  #backupId: string | undefined
  #entries = 0
  #ended = false
  #rank = -1
  #rest: Buffer = Buffer.alloc(0)
  #offset = 0

  constructor(what: string) {
    this.#what = what
  }

  /** @throws {FormatVersionError} @throws {DocumentDamagedError} */
  write(piece: Buffer): void {
    const bytes = this.#rest.length === 0 ? piece : Buffer.concat([this.#rest, piece])
    let at = 0
    for (let end = bytes.indexOf(LINE_FEED, at); end !== -1; end = bytes.indexOf(LINE_FEED, at)) {
      this.#line(this.#json(bytes.toString('utf8', at, end), this.#offset + at))
      at = end + 1
    }
    if (bytes.length - at > LONGEST_LINE) throw new DocumentDamagedError(this.#what, 'it has a line without end')
    // A copy: the piece is the caller's.
    this.#rest = Buffer.from(bytes.subarray(at))
    this.#offset += at
  }

  /** @throws {DocumentDamagedError} */
  end(): PackTable {
    if (this.#rest.length > 0) throw new DocumentDamagedError(this.#what, 'its last line is cut short')
    const source = this.#source
    if (this.#backupId === undefined || source === undefined || this.#fileList.length === 0 || !this.#ended)
      throw new DocumentDamagedError(this.#what, 'it is cut short')
    if (!this.#wal.ascending) throw new DocumentDamagedError(this.#what, 'its WAL is not in order')
    return {
      backupId: this.#backupId,
      packs: this.#packs,
      fileList: this.#fileList,
      source,
      wal: this.#wal,
      history: this.#history,
    }
  }

  #line(value: unknown): void {
    if (this.#backupId === undefined) {
      checkVersion(value, this.#what)
      this.#backupId = this.#parse(head, value).backupId
      return
    }
    if (this.#ended) throw new DocumentDamagedError(this.#what, 'there are lines after its end')
    const kind = Object.keys(value ?? {})[0] ?? ''
    const rank = ORDER.indexOf(kind)
    // One source, many of the others; each kind after the one before it.
    if (rank !== -1 && (rank < this.#rank || (kind === 'source' && rank === this.#rank)))
      throw new DocumentDamagedError(this.#what, 'its lines are not in order')
    this.#rank = rank
    switch (kind) {
      case 'pack':
        this.#packs.set(this.#packs.reserve(), this.#parse(lines.pack, value).pack)
        break
      case 'fileList':
        this.#fileList.push(this.#parse(lines.fileList, value).fileList)
        break
      case 'source':
        this.#source = this.#parse(lines.source, value).source
        break
      case 'wal':
        this.#wal.add(this.#parse(lines.wal, value).wal)
        break
      case 'history':
        this.#history.push(this.#parse(lines.history, value).history)
        break
      case 'end': {
        const { end } = this.#parse(lines.end, value)
        if (end !== this.#entries)
          throw new DocumentDamagedError(this.#what, `it has ${this.#entries} entries and says ${end}`)
        this.#ended = true
        return
      }
      default:
        throw new DocumentDamagedError(this.#what, `it has a line of the unknown kind ${JSON.stringify(kind)}`)
    }
    this.#entries += 1
  }

  #json(text: string, at: number): unknown {
    try {
      return JSON.parse(text)
    } catch (cause) {
      throw new DocumentDamagedError(this.#what, `byte ${at}: it is not JSON`, cause)
    }
  }

  #parse<T>(schema: z.ZodType<T>, value: unknown): T {
    const parsed = schema.safeParse(value)
    if (parsed.success) return parsed.data
    const [issue] = parsed.error.issues
    throw new DocumentDamagedError(this.#what, `${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'wrong shape'}`)
  }
}
