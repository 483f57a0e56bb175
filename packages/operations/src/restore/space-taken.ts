import { lstat, opendir } from 'node:fs/promises'
import { join } from 'node:path'

/** Bytes that the files below a directory take on disk, links not followed; what vanishes meanwhile is not counted. 0 where there is none. */
export async function spaceTaken(directory: string): Promise<number> {
  let bytes = 0
  const entries = await opendir(directory).catch(() => undefined)
  if (entries === undefined) return 0
  for await (const entry of entries) {
    const path = join(directory, entry.name)
    if (entry.isDirectory()) bytes += await spaceTaken(path)
    else if (entry.isFile()) bytes += ((await lstat(path).catch(() => undefined))?.blocks ?? 0) * 512
  }
  return bytes
}
