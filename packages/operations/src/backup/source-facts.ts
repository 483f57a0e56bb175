/** What the sealed source document says of the server: everything a restore may need and a bucket's reader should not see. */
import { type Logger, OperationalError, formatLsn } from '@tidemark/kernel'
import {
  type BackupTablespace,
  type BaseBackupEnd,
  type ConnectionTarget,
  type ServerFacts,
  type SourceDetails,
  type TablespaceFacts,
  type TablespaceWatch,
  readSourceDetails,
} from '@tidemark/postgres'
import { type SourceFacts, UNREAD_TABLESPACE_WAL } from '@tidemark/repository'

/** What the copy itself told. */
export interface CopyFacts {
  readonly skipped: BaseBackupEnd['skipped']
  readonly stopLsn: bigint
  /** The server's own list for the copy. */
  readonly tablespaces: readonly BackupTablespace[]
  readonly wal: TablespaceWatch
}

/**
 * Read after the copy, on a login of its own: those from before may not have lived as long.
 *
 * A server that does not answer any more is no reason to lose a backup that is complete; what is then missing is named in `unread`.
 */
export async function sourceFacts(
  target: ConnectionTarget,
  facts: ServerFacts,
  copy: CopyFacts,
  deps: { readonly logger: Logger; readonly signal: AbortSignal },
): Promise<SourceFacts> {
  const skippedPaths = new Set(copy.skipped.map(({ path }) => path))
  const details = await readSourceDetails(target, facts, skippedPaths, deps.signal).catch((error: unknown) => {
    if (deps.signal.aborted || !(error instanceof OperationalError)) throw error
    return unanswered(facts, error)
  })
  const unread = [...details.unread, ...walUnread(copy)]
  if (unread.length > 0) {
    deps.logger.warn({ parts: unread.length, unread: unread.slice(0, 20) }, 'not captured with the backup')
  }
  return {
    role: target.user,
    dataDirectory: facts.paths.dataDirectory ?? null,
    configuration: details.configuration.map(({ kind, path, inDataDirectory, content }) => ({
      kind,
      path,
      inDataDirectory,
      content: content?.toString('base64') ?? null,
    })),
    unread,
    settings: [...details.settings],
    tablespaces: tablespacesSeen(facts.tablespaces, copy, details.tablespaces),
    databases: details.databases.map(
      ({ oid, name, encoding, collate, ctype, localeProvider, collationVersion, bytes }) => ({
        oid: String(oid),
        name,
        encoding,
        collate,
        ctype,
        provider: localeProvider,
        collationVersion: collationVersion ?? null,
        bytes,
      }),
    ),
    extensions: [...details.extensions],
    skipped: [...copy.skipped],
  }
}

/** Oids of tablespaces whose files lie outside of the data directory: a restore has to find a place for each. */
export function outsideTablespaces(tablespaces: SourceFacts['tablespaces']): string[] {
  return tablespaces.filter(({ location }) => location !== null).map(({ oid }) => oid)
}

function tablespacesSeen(
  before: readonly TablespaceFacts[],
  { tablespaces, wal }: CopyFacts,
  after: readonly TablespaceFacts[],
): SourceFacts['tablespaces'] {
  const found = new Map<string, SourceFacts['tablespaces'][number]>()
  const see = (seen: 'before' | 'copy' | 'after' | 'wal', oid: number, location: string, name?: string): void => {
    const known = found.get(String(oid))
    // In place: '' in WAL, pg_tblspc/<oid> in the catalog and in the server's list.
    const place = location.startsWith('/') ? location : null
    if (known === undefined) {
      found.set(String(oid), { oid: String(oid), name: name ?? null, location: place, seen: [seen] })
      return
    }
    known.name ??= name ?? null
    known.location ??= place
    if (!known.seen.includes(seen)) known.seen.push(seen)
  }
  for (const { oid, name, location } of before) see('before', oid, location, name)
  for (const { oid, location } of tablespaces) see('copy', oid, location)
  for (const { oid, name, location } of after) see('after', oid, location, name)
  for (const { kind, oid, location } of wal.changes) if (kind === 'create') see('wal', oid, location ?? '')
  return [...found.values()]
}

/** The server replays this WAL and so must we have read it: a reader that stopped early is said, not hidden. */
function walUnread({ wal, stopLsn }: CopyFacts): { what: string; reason: string }[] {
  const { ended } = wal
  if (ended === undefined || ended.lsn >= stopLsn) return []
  return [{ what: UNREAD_TABLESPACE_WAL, reason: `not read beyond ${formatLsn(ended.lsn)}: ${ended.reason}` }]
}

function unanswered(facts: ServerFacts, { message }: OperationalError): SourceDetails {
  return {
    configuration: [],
    settings: [],
    databases: facts.databases.map((database) => ({ ...database, bytes: null })),
    extensions: [],
    tablespaces: [],
    unread: [{ what: 'configuration, settings, extensions, and tablespaces after the copy', reason: message }],
  }
}
