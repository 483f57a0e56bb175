/**
 * The names that travel: in job data, object keys, URLs, queue names and metric labels.
 *
 * One pattern per name, used by configuration, HTTP and queues alike, so that nothing is accepted
 * at one door and refused at the next. None of them can hold a `/`, a `:` or a `..`.
 */
import { z } from 'zod'

/** At most 48 characters, so that `tidemark_<cluster>` fits PostgreSQL's 63-byte names. */
export const clusterNameSchema = z.string().regex(/^[a-z0-9][a-z0-9-]{0,47}$/, {
  error: 'a cluster name: lower-case letters, digits and -; 1 to 48 characters, first a letter or digit',
})

export const repositoryNameSchema = z.string().regex(/^[a-z0-9][a-z0-9-]{0,47}$/, {
  error: 'a repository name: lower-case letters, digits and -; 1 to 48 characters, first a letter or digit',
})

/** A host as its workers call themselves; becomes part of a queue name. */
export const hostNameSchema = z.string().regex(/^[A-Za-z0-9](?:[A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$/, {
  error: 'a host name: letters, digits, . and -; 1 to 63 characters',
})

export const backupIdSchema = z.string().regex(/^[0-9a-f]{16}$/, { error: 'a backup id: 16 lower-case hex digits' })

export const backupReferenceSchema = z
  .string()
  .regex(/^(?:[0-9a-f]{16}|latest)$/, { error: "a backup id (16 lower-case hex digits) or 'latest'" })

/** PostgreSQL's text form of a WAL position. */
export const lsnSchema = z
  .string()
  .regex(/^[0-9A-F]{1,8}\/[0-9A-F]{1,8}$/, { error: 'an LSN as PostgreSQL prints it, like 16/B374D848' })

/** RFC 3339 with seconds and a mandatory offset. */
export const timestampSchema = z.iso.datetime({
  offset: true,
  error: 'a time with offset, like 2026-11-22T14:05:00Z',
})

/**
 * An absolute POSIX path in its shortest form: no `.`, `..`, `//`, trailing `/` or NUL, and not `/`.
 * What is shown, checked and used is then one and the same string.
 */
export const absolutePathSchema = z.string().max(4096).refine(isNormalisedAbsolutePath, {
  error: 'an absolute path in its shortest form, like /srv/restore/main (no .., //, or trailing /)',
})

function isNormalisedAbsolutePath(path: string): boolean {
  if (!path.startsWith('/') || path.includes('\0')) return false
  const parts = path.slice(1).split('/')
  return parts.every((part) => part !== '' && part !== '.' && part !== '..')
}

/** A count of bytes, files, milliseconds …: a whole number that JSON carries exactly. */
export const countSchema = z.int().nonnegative()

export type BackupReference = z.infer<typeof backupReferenceSchema>
