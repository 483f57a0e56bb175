/** Exit codes, as docs/cli.md has them. Scripts rely on these numbers. */
import { type Problem } from '@tidemark/kernel'

export const EXIT = {
  ok: 0,
  /** A bug. */
  internal: 1,
  /** The command line makes no sense. */
  usage: 2,
  /** Configuration, key, rights or names: somebody has to change something. */
  operator: 3,
  /** There is no such backup or operation. */
  notFound: 4,
  /** What is stored is damaged, incomplete or not trustworthy. */
  damaged: 5,
  /** It may work later: database, store, queue or API did not answer, or are busy. */
  unavailable: 6,
  /** Refused for safety: target not empty, disk too small, exists already. */
  refused: 7,
  /** Ctrl-C or SIGTERM. */
  interrupted: 130,
} as const

const BY_CODE: Readonly<Record<string, number>> = {
  ABORTED: EXIT.interrupted,
  INTERNAL: EXIT.internal,
  BACKUP_NOT_FOUND: EXIT.notFound,
  UNKNOWN_OPERATION: EXIT.notFound,
  TARGET_NOT_EMPTY: EXIT.refused,
  TARGET_DISK_SPACE: EXIT.refused,
  TARGET_IN_USE: EXIT.refused,
  TARGET_NOT_RESUMABLE: EXIT.refused,
  TABLESPACE_LOCATION_EXISTS: EXIT.refused,
  TABLESPACE_MAPPING_UNUSABLE: EXIT.refused,
  TABLESPACE_UNKNOWN: EXIT.refused,
  REPOSITORY_EXISTS: EXIT.refused,
  RESTORE_UNSUPPORTED: EXIT.refused,
  BACKUP_AMBIGUOUS: EXIT.usage,
  USAGE: EXIT.usage,
}

/** What is stored is not what it should be. Every other error that never passes is about names, settings or the server. */
const DAMAGED = new Set([
  'BACKUP_DAMAGED',
  'BACKUP_FOLDER_MISMATCH',
  'BACKUP_INCOMPLETE',
  'DOCUMENT_DAMAGED',
  'OBJECT_NOT_FOUND',
  'OBJECT_TOO_LARGE',
  'REPOSITORY_VERSION',
  'SIGNATURE_REFUSED',
  'STORED_OTHERWISE',
  'VERIFY_FAILED',
  'WAL_SEGMENT_CONFLICT',
])

export function exitCodeOf({ code, retry, facts }: Problem): number {
  const known = BY_CODE[code]
  if (known !== undefined) return known
  const { causeCode } = facts
  if (DAMAGED.has(code) || code.startsWith('SEAL_') || (typeof causeCode === 'string' && DAMAGED.has(causeCode)))
    return EXIT.damaged
  switch (retry) {
    case 'after-operator':
      return EXIT.operator
    case 'backoff':
      return EXIT.unavailable
    case 'never':
      return EXIT.operator
    default:
      return retry satisfies never
  }
}
