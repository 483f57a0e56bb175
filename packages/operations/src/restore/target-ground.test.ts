/** Directories that are not what they were, or not where they seem to be. */
import { execFileSync } from 'node:child_process'
import {
  chown,
  lstat,
  mkdir,
  mkdtemp,
  readFile,
  readdir,
  realpath,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { TablespaceMappingError, TargetUnusableError } from '../errors.ts'
import { OWNER, claim, placeOf } from './claim.test-support.ts'
import { planTablespaces } from './plan-tablespaces.ts'
import type { TargetTablespace } from './tablespace-claim.ts'
import { inspectTarget } from './target-facts.ts'
import { TargetRoot } from './target-root.ts'

const isRoot = process.getuid?.() === 0
if (!isRoot) process.stderr.write('not root: tests that mount and change owners are skipped\n')
const OTHER = { uid: 23_456, gid: 23_456 }
const MARKER = 'tidemark_tablespace.json'

let folder = ''
const mounts: string[] = []
beforeEach(async () => {
  folder = await realpath(await mkdtemp(join(tmpdir(), 'tidemark-ground-')))
})
afterEach(async () => {
  for (const mount of mounts.splice(0)) execFileSync('umount', [mount])
  await rm(folder, { recursive: true })
})

const space = async (path: string): Promise<TargetTablespace> => ({
  oid: '16400',
  path,
  place: await placeOf(path),
  linked: true,
})

async function made(name: string): Promise<string> {
  const path = join(folder, name)
  await mkdir(path, { mode: 0o755 })
  return path
}

function mount(...args: string[]): void {
  execFileSync('mount', args)
  mounts.push(args.at(-1) ?? '')
}

test('a directory that took the place of the one that was looked at is left as it is', async () => {
  const [path, victim] = [await made('target'), await made('victim')]
  const { seen } = await inspectTarget(path, OWNER)
  await rename(path, `${path}-aside`)
  await rename(victim, path)
  const before = await lstat(path)
  await expect(TargetRoot.take(path, OWNER, { seen, above: undefined })).rejects.toThrow(TargetUnusableError)
  expect(await lstat(path)).toMatchObject({ uid: before.uid, gid: before.gid, mode: before.mode })
  await expect(TargetRoot.take(path, OWNER, await placeOf(join(folder, 'none')))).rejects.toThrow(TargetUnusableError)
  expect(await lstat(path)).toMatchObject({ uid: before.uid, gid: before.gid, mode: before.mode })
})

test.runIf(isRoot)('nothing is made in a folder that took the place of the one that was looked at', async () => {
  const [above, other] = [await made('above'), await made('other')]
  const place = await inspectTarget(join(above, 'target'), OWNER)
  await rename(above, `${above}-aside`)
  await symlink(other, above)
  await expect(TargetRoot.take(join(above, 'target'), OWNER, place)).rejects.toThrow(TargetUnusableError)
  expect(await readdir(other)).toEqual([])
})

describe('a claim that fails changes nothing', () => {
  test.runIf(isRoot)('and gives nobody what was not his', async () => {
    const [path, full] = [await made('target'), await made('full')]
    for (const each of [path, full]) await chown(each, OTHER.uid, OTHER.gid)
    await writeFile(join(full, 'precious'), '')
    await expect(claim(path, { tablespaces: [await space(full)] })).rejects.toThrow(TablespaceMappingError)
    for (const each of [path, full]) expect(await lstat(each)).toMatchObject({ ...OTHER, mode: 0o40755 })
    expect(await readdir(path)).toEqual([])
    expect(await readdir(full)).toEqual(['precious'])
  })

  test('where it would have made the directory, there is none', async () => {
    const full = await made('full')
    await writeFile(join(full, 'precious'), '')
    const tablespaces = [await space(join(folder, 'made')), { ...(await space(full)), oid: '16500' }]
    await expect(claim(join(folder, 'target'), { tablespaces })).rejects.toThrow(/it holds precious/)
    expect((await readdir(folder)).toSorted()).toEqual(['full'])
    // Planned as absent, and there by now.
    const absent = { ...(await space(full)), place: (await space(join(folder, 'made'))).place }
    await expect(claim(join(folder, 'target'), { tablespaces: [absent] })).rejects.toThrow(/not the directory/)
    expect((await readdir(folder)).toSorted()).toEqual(['full'])
  })

  test('a delta whose tablespace is not its own any more leaves the copy able to start', async () => {
    const [path, side] = [join(folder, 'target'), await made('side')]
    await restoredWith(path, side)
    await rm(join(side, MARKER))
    await writeFile(join(side, 'precious'), '')
    await expect(claim(path, { mode: 'delta', tablespaces: [await space(side)] })).rejects.toThrow(
      /no marker of this target/,
    )
    expect(await readdir(join(path, 'global'))).toEqual(['pg_control'])
    expect(JSON.parse(await readFile(join(path, 'tidemark_restore.json'), 'utf8'))).toMatchObject({ state: 'complete' })
    expect(await readdir(path)).not.toContain('postmaster.pid')
    expect(await readdir(side)).toEqual(['precious'])
  })
})

/** A finished restore with one tablespace. */
async function restoredWith(path: string, side: string): Promise<void> {
  const target = await claim(path, { tablespaces: [await space(side)] })
  await target.makeDirectory('global', 0o700)
  await target.makeDirectory('pg_tblspc', 0o700)
  await target.linkTablespaces()
  await target.writeFile('global/pg_control.tidemark', Buffer.from('control'))
  await target.syncDirectories()
  await target.complete('now')
}

describe('a tablespace', () => {
  test('carries a marker of its own: which directory it is, and of which data directory', async () => {
    const [path, side] = [join(folder, 'target'), await made('side')]
    await restoredWith(path, side)
    expect(JSON.parse(await readFile(join(side, MARKER), 'utf8'))).toEqual({
      oid: '16400',
      directory: { path: side, inode: (await stat(side)).ino },
      of: { path, inode: (await stat(path)).ino },
    })
    const again = await claim(path, { mode: 'delta', tablespaces: [await space(side)] })
    await again.keep()
    expect(await readdir(side)).toEqual([MARKER])
  })

  test('that does not carry its marker any more is not emptied by a discard', async () => {
    const side = await made('side')
    const target = await claim(join(folder, 'target'), { tablespaces: [await space(side)] })
    await rm(join(side, MARKER))
    await writeFile(join(side, 'precious'), '')
    await target.discard()
    expect(await readdir(side)).toEqual(['precious'])
  })

  test('of two restores into one directory, the second is refused and takes nothing away', async () => {
    const side = await made('side')
    const first = await claim(join(folder, 'first'), { tablespaces: [await space(side)] })
    await writeFile(join(side, 'of the first'), '')
    await expect(claim(join(folder, 'second'), { tablespaces: [await space(side)] })).rejects.toMatchObject({
      code: 'TARGET_IN_USE',
    })
    await first.keep()
    await expect(claim(join(folder, 'second'), { tablespaces: [await space(side)] })).rejects.toThrow(
      TablespaceMappingError,
    )
    expect((await readdir(side)).toSorted()).toEqual(['of the first', MARKER])
    expect(await readdir(folder)).not.toContain('second')
  })

  test('is found in its data directory, and in another, through links too', async () => {
    const [target, live] = [await made('target'), await made('live')]
    await writeFile(join(live, 'PG_VERSION'), '15')
    await mkdir(join(live, 'base'))
    await symlink(target, join(folder, 'to-target'))
    await symlink(join(live, 'base'), join(folder, 'to-live'))
    for (const to of ['to-target/side', 'to-live/side'])
      await expect(planTo(join(folder, to), target)).rejects.toThrow(TablespaceMappingError)
    const used = await made('used')
    await mkdir(join(used, 'PG_15_202209061'))
    await expect(planTo(join(used, 'side'), target)).rejects.toThrow(/a tablespace/)
    await expect(planTo(join(folder, 'free'), target)).resolves.toHaveLength(1)
  })

  test.runIf(isRoot)('is found in its data directory through a bind mount, too', async () => {
    const [target, bound] = [await made('target'), await made('bound')]
    mount('--bind', target, bound)
    await expect(planTo(join(bound, 'side'), target)).rejects.toThrow(/lie in each other/)
  })
})

async function planTo(to: string, targetDirectory: string): Promise<unknown> {
  const location = join(folder, 'of the source')
  const known = {
    oids: ['16400'],
    source: { tablespaces: [{ oid: '16400', name: 'side', location, seen: ['before'] }] },
    mapped: [{ oid: 16_400, location }],
    inWal: [],
  }
  const wishes = { targetDirectory, tablespaceMappings: [{ from: location, to }], tablespaceRoot: undefined }
  return await planTablespaces(known, wishes, undefined, undefined)
}

describe('a target', () => {
  test.each(['PG_VERSION', 'postmaster.pid', 'tidemark_restore.json'])(
    'in a directory with %s is refused, through links too',
    async (sign) => {
      const live = await made('live')
      await writeFile(join(live, sign), '')
      await mkdir(join(live, 'pg_log', 'deep'), { recursive: true })
      await symlink(join(live, 'pg_log'), join(folder, 'link'))
      for (const path of [
        join(live, 'new'),
        join(live, 'pg_log', 'deep'),
        join(folder, 'link', 'deep'),
        join(folder, 'link', 'new'),
      ])
        await expect(claim(path)).rejects.toThrow(/which is a data directory/)
      expect(await readdir(join(live, 'pg_log'), { recursive: true })).toEqual(['deep'])
    },
  )

  test.runIf(isRoot)('that holds a mount is refused, and nothing in one is ever taken away', async () => {
    const path = join(folder, 'target')
    const target = await claim(path)
    await target.makeDirectory('global', 0o700)
    await target.writeFile('global/pg_control.tidemark', Buffer.from('control'))
    await mkdir(join(path, 'with space'))
    mount('-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', join(path, 'with space'))
    await writeFile(join(path, 'with space', 'precious'), '')

    await expect(target.refuseMounts()).rejects.toThrow(/mounted in it, at .*with space/)
    await expect(target.discard()).rejects.toThrow(TargetUnusableError)
    await target.keep()
    await expect(claim(path, { mode: 'resume' })).rejects.toThrow(/mounted in it/)
    expect(await readdir(join(path, 'with space'))).toEqual(['precious'])
  })
})
