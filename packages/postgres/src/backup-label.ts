import { parseLsn, type Lsn } from '@tidemark/kernel'
import { PostgresFileInvalidError } from './errors.ts'

/**
 * backup_label: tells a restored server where its replay has to begin (build_backup_content,
 * src/backend/access/transam/xlogbackup.c). Without it the server would start from the checkpoint in
 * pg_control, which is too late, and end up corrupted without a word.
 */
export interface BackupLabel {
  readonly startLsn: Lsn
  /** 24 hex digits. */
  readonly startWalFile: string
  readonly checkpointLsn: Lsn
  readonly startTimeline: number
  readonly backupFrom: 'primary' | 'standby'
  /** As written, in the server's log_timezone. */
  readonly startTime: string
  readonly label: string
  /** Only in a backup made of increments (17 and later). */
  readonly incrementalFromLsn?: Lsn
}

/** @throws {PostgresFileInvalidError} when a needed line is missing or cannot be read. */
export function parseBackupLabel(text: string): BackupLabel {
  const lines = new Map<string, string>()
  for (const line of text.split('\n')) {
    const colon = line.indexOf(': ')
    if (colon > 0 && !lines.has(line.slice(0, colon))) lines.set(line.slice(0, colon), line.slice(colon + 2))
  }
  const value = (name: string): string => {
    const found = lines.get(name)
    if (found === undefined) throw new PostgresFileInvalidError('backup_label', `it has no line ${name}`)
    return found
  }
  const start = /^(\S+) \(file ([0-9A-F]{24})\)$/.exec(value('START WAL LOCATION'))
  const backupFrom = value('BACKUP FROM')
  const startTimeline = Number(value('START TIMELINE'))
  if (!start?.[1] || !start[2] || !Number.isInteger(startTimeline) || startTimeline < 1) {
    throw new PostgresFileInvalidError('backup_label', 'its start is not readable')
  }
  if (backupFrom !== 'primary' && backupFrom !== 'standby') {
    throw new PostgresFileInvalidError('backup_label', `BACKUP FROM is ${JSON.stringify(backupFrom)}`)
  }
  const incrementalFrom = lines.get('INCREMENTAL FROM LSN')
  return {
    startLsn: position(start[1]),
    startWalFile: start[2],
    checkpointLsn: position(value('CHECKPOINT LOCATION')),
    startTimeline,
    backupFrom,
    startTime: value('START TIME'),
    label: value('LABEL'),
    ...(incrementalFrom === undefined ? {} : { incrementalFromLsn: position(incrementalFrom) }),
  }
}

function position(text: string): Lsn {
  try {
    return parseLsn(text)
  } catch {
    throw new PostgresFileInvalidError('backup_label', `${JSON.stringify(text)} is not an LSN`)
  }
}

/** One line of tablespace_map: a tablespace's OID and its absolute path on the source. */
export interface TablespaceMapping {
  readonly oid: number
  readonly location: string
}

/**
 * tablespace_map (read_tablespace_map, src/backend/access/transam/xlogrecovery.c): `<oid> <path>`,
 * where a backslash in front of a newline, carriage return or backslash belongs to the path.
 */
export function parseTablespaceMap(text: string): TablespaceMapping[] {
  const mappings: TablespaceMapping[] = []
  for (const line of text.matchAll(/((?:\\[\s\S]|[^\\\n\r])+)(?:\r?\n|$)/g)) {
    const parts = /^(\d+) ([\s\S]+)$/.exec(line[1] ?? '')
    if (!parts?.[2]) throw new PostgresFileInvalidError('tablespace_map', 'a line is not readable', { line: line[0] })
    mappings.push({ oid: Number(parts[1]), location: parts[2].replaceAll(/\\([\s\S])/g, '$1') })
  }
  return mappings
}

/** The reverse of parseTablespaceMap; for a restore that moves tablespaces elsewhere. */
export function formatTablespaceMap(mappings: readonly TablespaceMapping[]): string {
  return mappings.map(({ oid, location }) => `${oid} ${location.replaceAll(/[\\\n\r]/g, '\\$&')}\n`).join('')
}
