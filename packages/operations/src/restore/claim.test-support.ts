/** What the tests of restore targets begin with. */
import { lstat, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { Place } from './directory-identity.ts'
import { type ClaimOptions, TargetDirectory } from './target-directory.ts'
import { inspectTarget } from './target-facts.ts'

/** Given by name, so that the tests run as root and as anybody. */
export const OWNER = process.getuid?.() === 0 ? { uid: 12_345, gid: 12_345 } : undefined

export const fence = {
  backupId: '00112233445566ff',
  cluster: 'main',
  systemId: '7',
  profile: 'clone',
  startedAt: 'then',
} as const

/** Inspects and claims at once. */
export async function claim(path: string, options: Partial<ClaimOptions> = {}): Promise<TargetDirectory> {
  const place = options.place ?? (await inspectTarget(path, options.owner ?? OWNER, options.mode))
  return await TargetDirectory.claim(path, { owner: OWNER, mode: 'new', place, tablespaces: [], fence, ...options })
}

/** As a plan would find it. */
export async function placeOf(path: string): Promise<Place> {
  const seen = await lstat(path, { bigint: true }).catch(() => undefined)
  return { seen, above: seen === undefined ? await stat(dirname(path), { bigint: true }) : undefined }
}
