/** Where a restore must not go whatever the path says: into somebody's data directory, or over what is mounted below. */
import type { Dirent } from 'node:fs'
import { lstat, readFile, readdir } from 'node:fs/promises'
import { dirname, join, sep } from 'node:path'
import { TargetUnusableError } from '../errors.ts'
import { resolvedPath } from './directory-identity.ts'
import { FENCE, TABLESPACE_FENCE } from './target-marker.ts'

/** Any of them makes a directory a server's own, or that of a restore. */
const SIGNS = ['PG_VERSION', 'postmaster.pid', 'global/pg_control', FENCE, TABLESPACE_FENCE]
/** A tablespace's folder for one version (TABLESPACE_VERSION_DIRECTORY, common/relpath.h). */
const VERSION_FOLDER = /^PG_\d+_\d+$/

/** The directory above `path`, links resolved, that a server or a restore uses; undefined where there is none. @throws system errors */
export async function serversAbove(path: string): Promise<string | undefined> {
  for (let above = dirname(await resolvedPath(path)); ; above = dirname(above)) {
    for (const sign of SIGNS) if (await isThere(join(above, sign))) return above
    if ((await entriesOf(above)).some((entry) => entry.isDirectory() && VERSION_FOLDER.test(entry.name))) return above
    if (above === dirname(above)) return undefined
  }
}

/** @param resolved without links. @param path for the error. @throws {TargetUnusableError} */
export async function refuseMountsBelow(resolved: string, path: string): Promise<void> {
  const [mount] = await mountsBelow(resolved)
  if (mount === undefined) return
  throw new TargetUnusableError(
    path,
    `another file system is mounted in it, at ${mount}`,
    'unmount it; a tablespace or pg_wal on a disk of its own is put there by --tablespace-mapping, or by hand after the restore',
  )
}

/** On Linux, bind mounts too; elsewhere nothing tells. */
async function mountsBelow(resolved: string): Promise<string[]> {
  const table = await readFile('/proc/self/mountinfo', 'utf8').catch(() => '')
  return table
    .split('\n')
    .map((line) => unescaped(line.split(' ')[4] ?? ''))
    .filter((mount) => mount.startsWith(resolved === sep ? sep : resolved + sep))
}

/** mountinfo writes spaces, tabs, line ends and backslashes as octal numbers (proc(5)). */
function unescaped(text: string): string {
  return text.replaceAll(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)))
}

async function isThere(path: string): Promise<boolean> {
  return await lstat(path).then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return false
      // A folder that this process may not look into is no reason: nothing above it could be reached at all.
      if (error.code === 'EACCES') return false
      throw error
    },
  )
}

/** A directory that cannot be listed is judged by the names that can be asked for. */
async function entriesOf(directory: string): Promise<Dirent[]> {
  return await readdir(directory, { withFileTypes: true }).catch(() => [])
}
