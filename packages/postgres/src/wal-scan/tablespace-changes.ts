import type { Lsn } from '@tidemark/kernel'
import { RM_TBLSPC_ID, WalRecordScanner, type WalRecord } from './wal-record-scanner.ts'

/** A tablespace that was made or dropped, as WAL tells it: without the name, which is in the catalog only. */
export interface TablespaceChange {
  readonly kind: 'create' | 'drop'
  readonly oid: number
  /** Present for `create`; empty for a tablespace inside the data directory (allow_in_place_tablespaces). */
  readonly location?: string
  readonly lsn: Lsn
}

const XLOG_TBLSPC_CREATE = 0x00
const XLOG_TBLSPC_DROP = 0x10

/** xl_tblspc_create_rec and xl_tblspc_drop_rec, src/include/commands/tablespace.h, the same from 15 to 18. */
export function scanTablespaceChanges(records: Iterable<WalRecord>): TablespaceChange[] {
  const changes: TablespaceChange[] = []
  for (const { lsn, resourceManager, info, data } of records) {
    if (resourceManager !== RM_TBLSPC_ID || data.length < 4) continue
    const oid = data.readUInt32LE(0)
    if (info === XLOG_TBLSPC_DROP) changes.push({ kind: 'drop', oid, lsn })
    if (info !== XLOG_TBLSPC_CREATE) continue
    const end = data.indexOf(0, 4)
    changes.push({ kind: 'create', oid, location: data.toString('utf8', 4, end < 0 ? data.length : end), lsn })
  }
  return changes
}

/**
 * Watches the WAL of a backup, segment by segment, for tablespaces: one that was made and dropped while the copy ran is in no catalog
 * and no file list, but replay makes it again.
 */
export class TablespaceWatch {
  readonly #scanner: WalRecordScanner
  readonly #changes: TablespaceChange[] = []

  constructor(options: { readonly walSegmentBytes: number; readonly fromSegment: bigint; readonly timeline?: number }) {
    this.#scanner = new WalRecordScanner(options)
  }

  get changes(): readonly TablespaceChange[] {
    return this.#changes
  }

  /** Where WAL stopped making sense, if it did: what comes after is not known. */
  get ended(): { readonly lsn: Lsn; readonly reason: string } | undefined {
    return this.#scanner.ended
  }

  push(segment: Uint8Array): void {
    this.#changes.push(...scanTablespaceChanges(this.#scanner.push(segment)))
  }
}
