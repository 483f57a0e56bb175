/** tablespace_map: with it the server makes the links of pg_tblspc anew when it starts to recover (read_tablespace_map, xlogrecovery.c). */
import { formatTablespaceMap, parseTablespaceMap } from '@tidemark/postgres'
import { RestoreUnsupportedError } from '../errors.ts'
import type { RestorePlan } from './plan-restore.ts'

export const TABLESPACE_MAP = 'tablespace_map'

/** The map as this target needs it. @throws {RestoreUnsupportedError} it names a tablespace that was not planned for. */
export function rewrittenMap(bytes: Buffer, { record, tablespaces }: RestorePlan): Buffer {
  const entries = parseTablespaceMap(bytes.toString('utf8')).map(({ oid }) => {
    const target = tablespaces.find((each) => Number(each.oid) === oid)?.target
    if (target === undefined)
      throw new RestoreUnsupportedError(
        record.backupId,
        `a tablespace ${oid} in its tablespace_map that nothing else speaks of`,
        'report this, with the output of tidemark restore plan --json',
      )
    return { oid, location: target.path }
  })
  return Buffer.from(formatTablespaceMap(entries))
}
