/** Where the files of a backup lie on this host. Strings have one character per byte, as in the file list. */
export interface TargetPaths {
  /** Of the data directory. */
  readonly base: string
  /** Tablespaces that lie elsewhere, by oid. */
  readonly tablespaces: Readonly<Record<string, string>>
}

const IN_TABLESPACE = /^pg_tblspc\/(\d+)(\/.*)$/s

/** @param relative as in the file list. */
export function absolutePath(paths: TargetPaths, relative: string): string {
  if (relative.startsWith('pg_tblspc/')) {
    const [, oid = '', rest = ''] = IN_TABLESPACE.exec(relative) ?? []
    const elsewhere = paths.tablespaces[oid]
    if (elsewhere !== undefined) return elsewhere + rest
  }
  return `${paths.base}/${relative}`
}

/** For fs calls: the bytes of such a string. */
export function pathBytes(path: string): Buffer {
  return Buffer.from(path, 'latin1')
}
