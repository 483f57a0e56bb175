/** What can happen to a directory between two restores: files shrink, grow, change, go, or become links to somewhere else. */
import { appendFile, lstat, open, readdir, rm, stat, symlink, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Random } from '@tidemark/testkit'

/** Without them there is no restore to go on with. */
const NEEDED = new Set(['tidemark_restore.json', 'postmaster.pid'])

/**
 * Changes one to four of its files.
 *
 * @param precious a path outside; it is made, reads `untouched`, and may be linked to.
 * @returns what was done, in words.
 */
export async function meddle(target: string, precious: string, chance: Random): Promise<string> {
  await writeFile(precious, 'untouched')
  const done: string[] = []
  for (let n = chance.integer(1, 4); n > 0; n -= 1) {
    const name = await anyFile(target, chance)
    if (name === undefined) break
    done.push(`${await change(join(target, name), precious, chance)} ${name}`)
  }
  return done.length === 0 ? 'nothing there to change' : done.join(', ')
}

async function anyFile(target: string, chance: Random): Promise<string | undefined> {
  const names = (await readdir(target, { recursive: true })).filter((name) => !NEEDED.has(name)).toSorted()
  for (const name of chance.shuffle(names)) {
    const found = await lstat(join(target, name))
    if (found.isFile()) return name
  }
  return undefined
}

async function change(path: string, precious: string, chance: Random): Promise<string> {
  const { size } = await stat(path)
  const how = chance.pick(['cut', 'change', 'change', 'lengthen', 'remove', 'link', 'stray'] as const)
  switch (how) {
    case 'cut':
      await truncate(path, chance.integer(0, Math.max(0, size - 1)))
      return 'cut'
    case 'change': {
      await using file = await open(path, 'r+')
      await file.write(chance.bytes(1), 0, 1, chance.integer(0, Math.max(0, size - 1)))
      return 'a byte changed in'
    }
    case 'lengthen':
      await appendFile(path, chance.bytes(chance.integer(1, 20_000)))
      return 'more in'
    case 'remove':
      await rm(path)
      return 'removed'
    case 'link':
      await rm(path)
      await symlink(precious, path)
      return 'a link in place of'
    case 'stray':
      await writeFile(`${path}.stray`, chance.bytes(100))
      return 'a stray file beside'
    default:
      return how satisfies never
  }
}
