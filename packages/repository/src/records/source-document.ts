/**
 * What is known of the database system that a backup was taken from, beyond what the record says in the clear: format, section 8.3.
 *
 * It lies sealed beside the packs, because configuration holds host names, paths and passwords.
 */
import { z } from 'zod'
import { FORMAT_VERSION } from '@tidemark/crypto'
import { BACKUP_ID } from '../layout.ts'

/** What `unread` calls WAL in which tablespaces were not looked for: its replay may make one anywhere. */
export const UNREAD_TABLESPACE_WAL = 'tablespaces in WAL'

const text = z.string()
const oid = z.string().regex(/^\d{1,10}$/)

const tablespaceSchema = z.object({
  oid,
  /** Null: only its WAL record was seen, which has no name. */
  name: text.nullable(),
  /** As the server said it; an in-place tablespace has none of its own. */
  location: text.nullable(),
  /** Where it was met: `before` the copy, in the server's own list for the `copy`, `after` it, or in the `wal` of its duration. */
  seen: z.array(text),
})

export const sourceDocumentSchema = z.object({
  format: z.literal('tidemark-source'),
  version: z.literal(FORMAT_VERSION),
  backupId: z.string().regex(BACKUP_ID),
  capturedAt: z.iso.datetime(),
  /** The role that took the backup: what it may not see is in `unread`. */
  role: text,
  dataDirectory: text.nullable(),
  configuration: z.array(
    z.object({
      /** `main`, `auto`, `included`, `hba`, `ident`. */
      kind: text,
      path: text,
      inDataDirectory: z.boolean(),
      /** Base64; null for a file inside the data directory, which the file list has. */
      content: z.base64().nullable(),
    }),
  ),
  unread: z.array(z.object({ what: text, reason: text })),
  /** Settings that differ from the built-in default. */
  settings: z.array(z.object({ name: text, value: text, unit: text.nullable(), source: text, file: text.nullable() })),
  tablespaces: z.array(tablespaceSchema),
  databases: z.array(
    z.object({
      oid,
      name: text,
      encoding: text,
      collate: text,
      ctype: text,
      provider: text,
      collationVersion: text.nullable(),
      bytes: z.number().int().nonnegative().nullable(),
    }),
  ),
  extensions: z.array(z.object({ database: text, name: text, version: text })),
  /** Links and special files that the server left out of its copy; the first 1,000, the record has their number. */
  skipped: z.array(z.object({ path: text, reason: text })),
})
export type SourceDocument = z.infer<typeof sourceDocumentSchema>
/** What a caller of the writer gives; the rest is the writer's own. */
export type SourceFacts = Omit<SourceDocument, 'format' | 'version' | 'backupId' | 'capturedAt'>

/** For a writer that knows nothing of a server, such as one in a test. */
export const NO_SOURCE_FACTS: SourceFacts = {
  role: 'unknown',
  dataDirectory: null,
  configuration: [],
  unread: [],
  settings: [],
  tablespaces: [],
  databases: [],
  extensions: [],
  skipped: [],
}
