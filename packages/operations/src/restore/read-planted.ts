/**
 * Reads a small file whose name somebody else may have given to something that is none.
 *
 * As root that somebody is the owner of a target: a link would have us read what he may not, a pipe would have us wait for ever, and an
 * endless file would become our memory.
 */
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'

const FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK
const MOST_BYTES = 1_048_576

/** @returns undefined where there is nothing of the name; no text for anything but an ordinary file of at most 1 MiB. @throws system errors */
export async function readPlanted(path: string): Promise<{ readonly text: string | undefined } | undefined> {
  const handle = await open(path, FLAGS).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    // What O_NOFOLLOW says of a link, and O_NONBLOCK of a socket or of a device that is not there.
    if (error.code === 'ELOOP' || error.code === 'ENXIO') return 'other'
    throw error
  })
  if (handle === undefined) return undefined
  if (handle === 'other') return { text: undefined }
  await using file = handle
  const found = await file.stat()
  if (!found.isFile() || found.size > MOST_BYTES) return { text: undefined }
  const bytes = Buffer.alloc(found.size)
  let filled = 0
  while (filled < bytes.length) {
    const { bytesRead } = await file.read(bytes, filled, bytes.length - filled, filled)
    if (bytesRead === 0) break
    filled += bytesRead
  }
  return { text: bytes.toString('utf8', 0, filled) }
}
