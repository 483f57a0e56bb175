import { existsSync } from 'node:fs'
import type { CommitRecord } from '@tidemark/repository'
import { shellWord } from './recovery-config.ts'
import type { Owner } from './target-directory.ts'

/**
 * The shell command that starts the restored server: Debian's binaries of the right major version where they are, and as the files' owner
 * where this process is root.
 */
export function startCommand(record: CommitRecord, directory: string, owner: Owner | undefined): string {
  const debian = `/usr/lib/postgresql/${Math.floor(record.server.versionNum / 10_000)}/bin/pg_ctl`
  const pgCtl = existsSync(debian) ? debian : 'pg_ctl'
  const asOwner = owner === undefined ? '' : `runuser -u "$(id -nu ${owner.uid})" -- `
  return `${asOwner}${pgCtl} -D ${shellWord(directory)} -l ${shellWord(`${directory}/tidemark_start.log`)} -w start`
}
