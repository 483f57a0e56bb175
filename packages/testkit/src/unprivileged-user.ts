import { readFileSync } from 'node:fs'

export interface OsUser {
  readonly uid: number
  readonly gid: number
}

/** Who servers that refuse root are run as: `postgres` when we are root, undefined (ourselves) otherwise. */
export function unprivilegedUser(): OsUser | undefined {
  if (process.getuid?.() !== 0) return undefined
  const line = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .find((entry) => entry.startsWith('postgres:'))
  const [, , uid, gid] = line?.split(':') ?? []
  if (uid === undefined || gid === undefined) {
    throw new Error(
      'run as root, postgres needs the OS user `postgres`: install the package postgresql, or run as another user',
    )
  }
  return { uid: Number(uid), gid: Number(gid) }
}
