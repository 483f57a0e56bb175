/** A directory as data: what two restores of one backup have in common, byte for byte, before a server ever runs in them. */
import { createHash } from 'node:crypto'
import { lstat, readFile, readdir, readlink } from 'node:fs/promises'
import { join } from 'node:path'

/** By relative path: kind, mode, owner, and size and SHA-256 of a file's bytes. */
export type Tree = ReadonlyMap<string, string>

/** Says when and where it was restored. */
const MARKER = 'tidemark_restore.json'
/** Names its own directory. */
const SETTINGS = 'postgresql.auto.conf'

export async function treeOf(directory: string): Promise<Tree> {
  const tree = new Map<string, string>()
  for (const name of (await readdir(directory, { recursive: true })).toSorted())
    tree.set(name, await lookAt(directory, name))
  return tree
}

async function lookAt(directory: string, name: string): Promise<string> {
  const path = join(directory, name)
  const found = await lstat(path)
  const head = `${(found.mode & 0o7777).toString(8)} ${found.uid}:${found.gid}`
  if (found.isSymbolicLink()) return `link ${head} ${await readlink(path)}`
  if (found.isDirectory()) return `directory ${head}`
  if (!found.isFile()) return `neither file nor directory ${head}`
  const bytes = await readFile(path)
  if (name === MARKER) return `marker ${head} ${markedAs(bytes.toString())}`
  const compared = name === SETTINGS ? Buffer.from(bytes.toString().replaceAll(directory, '<target>')) : bytes
  return `file ${head} ${found.nlink} ${compared.length} ${createHash('sha256').update(compared).digest('hex')}`
}

function markedAs(text: string): string {
  const { state, backupId, cluster } = JSON.parse(text) as Record<string, string>
  return `${state} ${backupId} ${cluster}`
}

/** What differs, as text; empty where nothing does. */
export function differences(found: Tree, wanted: Tree): string[] {
  const names = [...new Set([...wanted.keys(), ...found.keys()])].toSorted()
  return names
    .filter((name) => found.get(name) !== wanted.get(name))
    .map((name) => `${name}: ${found.get(name) ?? 'not there'}, not ${wanted.get(name) ?? 'there'}`)
}
