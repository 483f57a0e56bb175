import { randomBytes } from 'node:crypto'

/** 64 random bits as 16 lower-case hex digits: ids of backups, attempts and repositories. */
export function randomId(): string {
  return randomBytes(8).toString('hex')
}
