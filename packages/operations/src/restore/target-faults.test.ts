/** What the owner of a target can do to a restore that runs as root, and what a kill or a full disk leaves. */
import { execFileSync } from 'node:child_process'
import {
  chmod,
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
  truncate,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { TargetUnusableError, TargetWriteError } from '../errors.ts'
import { OWNER, fence } from './claim.test-support.ts'
import { planTablespaces } from './plan-tablespaces.ts'
import type { TargetTablespace } from './tablespace-claim.ts'
import { type ClaimOptions, TargetDirectory } from './target-directory.ts'
import { type TargetFacts, inspectTarget } from './target-facts.ts'
import { TargetLock, refuseIfHeld } from './target-lock.ts'
import { TargetRoot } from './target-root.ts'

const isRoot = process.getuid?.() === 0
if (!isRoot) process.stderr.write('not root: tests of what root must not do are skipped\n')
/** Whose a restored directory is in the end. */
const THEIRS = OWNER ?? { uid: process.getuid?.(), gid: process.getgid?.() }
const FENCE = 'tidemark_restore.json'
const MARKER = 'tidemark_tablespace.json'
const OID = '16400'

let folder = ''
const mounts: string[] = []
beforeEach(async () => {
  folder = await realpath(await mkdtemp(join(tmpdir(), 'tidemark-faults-')))
})
afterEach(async () => {
  vi.restoreAllMocks()
  for (const mount of mounts.splice(0)) execFileSync('umount', [mount])
  await rm(folder, { recursive: true })
})

/** Plans, then claims; what happens `between` the two is somebody else's doing. */
async function claim(
  path: string,
  options: Partial<ClaimOptions> & { readonly side?: string; readonly between?: () => Promise<void> } = {},
): Promise<TargetDirectory> {
  const { mode = 'new', side, between, ...rest } = options
  const owner = options.owner ?? (mode === 'new' ? OWNER : undefined)
  const place = await inspectTarget(path, owner, mode)
  const tablespaces = side === undefined ? [] : [await planned(side, path, place)]
  await between?.()
  return await TargetDirectory.claim(path, { owner: place.owner, mode, place, tablespaces, fence, ...rest })
}

async function planned(
  side: string,
  targetDirectory: string,
  { marker, owner }: TargetFacts,
): Promise<TargetTablespace> {
  const location = join(folder, 'of the source')
  const known = {
    oids: [OID],
    source: { tablespaces: [{ oid: OID, name: 'side', location, seen: ['before' as const] }] },
    mapped: [{ oid: Number(OID), location }],
  }
  // A restore that takes up another one learns the path from the marker alone.
  const tablespaceMappings = marker === undefined ? [{ from: location, to: side }] : []
  const wishes = { targetDirectory, tablespaceMappings, tablespaceRoot: undefined }
  const [found] = await planTablespaces(known, wishes, marker, owner)
  if (found?.target === undefined || found.place === undefined) throw new TypeError('no place for the tablespace')
  return { oid: OID, path: found.target.path, place: found.place, linked: true }
}

async function made(...names: string[]): Promise<string> {
  const path = join(folder, ...names)
  await mkdir(path, { recursive: true, mode: 0o755 })
  return path
}

async function owned(...names: string[]): Promise<string> {
  const path = await made(...names)
  if (OWNER !== undefined) await chown(path, OWNER.uid, OWNER.gid)
  return path
}

const markerOf = async (path: string): Promise<unknown> => JSON.parse(await readFile(join(path, FENCE), 'utf8'))

/** All is there but the name of pg_control. */
async function almost(path: string, side?: string): Promise<TargetDirectory> {
  const target = await claim(path, side === undefined ? {} : { side })
  await target.makeDirectory('global', 0o700)
  await target.makeDirectory('pg_tblspc', 0o700)
  await target.linkTablespaces()
  await target.writeFile('global/pg_control.tidemark', Buffer.from('control'))
  await target.syncDirectories()
  return target
}

/** The owner of what lies above puts a link in its place. */
async function swap(): Promise<void> {
  await rename(join(folder, 'x'), join(folder, 'x-aside'))
  await symlink(join(folder, 'victim'), join(folder, 'x'))
}

describe.runIf(isRoot)('between plan and claim', () => {
  test.each(['resume', 'delta'] as const)(
    'the owner cannot make root give him another directory as a tablespace (%s)',
    async (mode) => {
      const [path, victim] = [await owned('target'), await made('victim')]
      await owned('x')
      const side = await owned('x', 'sbin')
      await made('victim', 'sbin')
      const first = await almost(path, side)
      await (mode === 'resume' ? first.keep() : first.complete('now'))
      await expect(claim(path, { mode, side, between: swap })).rejects.toThrow(TargetUnusableError)
      expect(await lstat(join(victim, 'sbin'))).toMatchObject({ uid: 0, mode: 0o40755 })
      expect(await readdir(join(victim, 'sbin'))).toEqual([])
    },
  )

  test('nor have a tablespace made elsewhere', async () => {
    const [path, x, victim] = [await owned('target'), await owned('x'), await made('victim')]
    await expect(claim(path, { side: join(x, 'side'), between: swap })).rejects.toThrow(TargetUnusableError)
    expect(await readdir(victim)).toEqual([])
    expect(await readdir(path)).toEqual([])
  })

  test('nor give him another data directory, nor one that is not his any more', async () => {
    const [path, victim] = [await owned('x', 'target'), await made('victim', 'target')]
    await expect(claim(path, { between: swap })).rejects.toThrow(/not the directory that was looked at/)
    expect(await lstat(victim)).toMatchObject({ uid: 0, mode: 0o40755 })
    expect(await readdir(victim)).toEqual([])

    const own = await owned('own')
    await expect(claim(own, { between: () => chown(own, 0, 0) })).rejects.toThrow(TargetUnusableError)
    expect(await lstat(own)).toMatchObject({ uid: 0, mode: 0o40755 })
  })

  test('a marker alone does not have root make a directory', async () => {
    const [path, victim] = [await owned('target'), await made('victim')]
    const target = await claim(path, { side: await owned('side') })
    await target.keep()
    const marker = (await markerOf(path)) as Record<string, unknown>
    await writeFile(join(path, FENCE), JSON.stringify({ ...marker, tablespaces: { [OID]: join(victim, 'x.d') } }))
    await expect(claim(path, { mode: 'resume', side: '' })).rejects.toThrow(/only the marker names it/)
    expect(await readdir(victim)).toEqual([])
  })
})

describe('a completion that fails', () => {
  test.runIf(isRoot)(
    'before its last word leaves every tablespace with root, and what the owner plants is not followed',
    async () => {
      const [path, x, victim] = [await owned('target'), await owned('x'), await made('victim')]
      const side = await owned('x', 'side')
      await (await almost(path, side)).keep()
      const target = await claim(path, { mode: 'resume', side })
      await writeFile(join(side, 'a file'), '')
      // The disk is full at the last word; 'ready' was written before.
      const write = target.writeFile.bind(target)
      vi.spyOn(target, 'writeFile').mockImplementation(async (relative, bytes, mode) => {
        if (bytes.toString().includes('"complete"')) throw new TargetWriteError(relative, { code: 'ENOSPC' })
        await write(relative, bytes, mode)
      })
      await target.makeDirectory('global', 0o700)
      await expect(target.complete('now')).rejects.toThrow(/ENOSPC/)
      expect(await lstat(side)).toMatchObject({ uid: 0, mode: 0o40700 })

      await made('victim', 'side')
      await writeFile(join(victim, 'side', 'precious'), '')
      await writeFile(join(victim, 'side', MARKER), await readFile(join(side, MARKER)))
      await rename(x, `${x}-aside`)
      await symlink(victim, x)
      await target.discard()
      expect((await readdir(join(victim, 'side'))).toSorted()).toEqual(['precious', MARKER])
      expect(await readdir(join(`${x}-aside`, 'side'))).toEqual([])
    },
  )

  test('after its last word leaves a whole copy, which is neither hidden nor taken away', async () => {
    for (const [name, leave] of [
      ['kept', (target: TargetDirectory) => target.keep()],
      ['discarded', (target: TargetDirectory) => target.discard()],
    ] as const) {
      const [path, side] = [await owned(name), await owned(`side of ${name}`)]
      const target = await almost(path, side)
      const release = vi.spyOn(TargetLock.prototype, 'release').mockRejectedValueOnce(new Error('EIO'))
      await expect(target.complete('now')).rejects.toThrow(TargetWriteError)
      expect(target.isComplete).toBe(true)
      release.mockRestore()
      await leave(target)
      expect(await readdir(join(path, 'global'))).toEqual(['pg_control'])
      expect(await markerOf(path)).toMatchObject({ state: 'complete' })
      for (const each of [path, side]) expect(await lstat(each)).toMatchObject(THEIRS)
      await (await claim(path, { mode: 'delta', side })).keep()
    }
  })

  test('as the last word is made durable, too', async () => {
    const path = await owned('target')
    const target = await almost(path)
    const spy = vi.spyOn(TargetRoot.prototype, 'sync').mockImplementation(async () => {
      if (target.isComplete) throw Object.assign(new Error('EIO'), { code: 'EIO' })
    })
    await expect(target.complete('now')).rejects.toThrow(TargetWriteError)
    spy.mockRestore()
    await target.keep()
    expect(await readdir(join(path, 'global'))).toEqual(['pg_control'])
    expect(await readdir(path)).not.toContain('postmaster.pid')
    await (await claim(path, { mode: 'delta' })).keep()
  })

  test.runIf(isRoot)('that was killed before it gave the directories back is finished by the next', async () => {
    const [path, side] = [await owned('target'), await owned('side')]
    await (await almost(path, side)).complete('now')
    await expect(claim(path, { mode: 'resume', side })).rejects.toMatchObject({ code: 'TARGET_NOT_RESUMABLE' })
    for (const each of [path, side]) {
      await chown(each, 0, 0)
      await chmod(each, 0o700)
    }
    const target = await claim(path, { mode: 'resume', side })
    expect(target.isReady).toBe(true)
    expect(target.owner).toEqual(OWNER)
    await target.complete('later')
    for (const each of [path, side]) expect(await lstat(each)).toMatchObject({ ...OWNER })
    expect(await readdir(join(path, 'global'))).toEqual(['pg_control'])
    expect(await markerOf(path)).toMatchObject({ state: 'complete', finishedAt: 'later' })
  })

  test('nothing is reached by its path once it was given back', async () => {
    const target = await almost(await owned('target'))
    await target.complete('now')
    expect(() => target.join('global')).toThrow(/was given back/)
    await target.keep()
    await target.discard()
    expect(await readdir(join(target.path, 'global'))).toEqual(['pg_control'])
  })
})

describe('a restore that was killed as it wrote its marker', () => {
  test('is followed by another one', async () => {
    const [path, side] = [await owned('target'), await owned('side')]
    await writeFile(join(path, `${FENCE}.tmp`), '{"state":"inc')
    await writeFile(join(side, `${MARKER}.tmp`), '{"oid":')
    const target = await claim(path, { side })
    expect((await readdir(path)).toSorted()).toEqual(['postmaster.pid', FENCE])
    expect(await readdir(side)).toEqual([MARKER])
    await target.keep()
    // Killed once more: it has its fence, and the tablespace no marker yet.
    await rename(join(side, MARKER), join(side, `${MARKER}.tmp`))
    await truncate(join(side, `${MARKER}.tmp`), 5)
    await (await claim(path, { mode: 'resume', side })).keep()
    expect(await readdir(side)).toEqual([MARKER])
  })

  test('has given the marker to whom the directory is given', async () => {
    const path = await owned('target')
    await (await claim(path)).keep()
    expect(await lstat(join(path, FENCE))).toMatchObject(THEIRS)
    expect(await markerOf(path)).toMatchObject({ state: 'incomplete' })
  })

  test.runIf(isRoot).each(['target', 'side'])(
    'on a full disk: all is as it was, and the error says so (%s)',
    async (full) => {
      const small = await made('small')
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=32k', 'tmpfs', small])
      mounts.push(small)
      const [path, side] = [
        await owned(...(full === 'target' ? ['small', 'target'] : ['target'])),
        await owned(...(full === 'side' ? ['small', 'side'] : ['side'])),
      ]
      await writeFile(join(small, 'filler'), Buffer.alloc(32_768))
      await expect(claim(path, { side })).rejects.toMatchObject({
        code: 'TARGET_WRITE_FAILED',
        facts: { system: 'ENOSPC' },
      })
      for (const each of [path, side]) {
        expect(await readdir(each)).toEqual([])
        expect(await lstat(each)).toMatchObject({ ...OWNER, mode: 0o40755 })
      }
      await rm(join(small, 'filler'))
      await (await claim(path, { side })).discard()
    },
  )
})

test.runIf(isRoot)('a pipe in the place of the folder above is not waited for', async () => {
  const path = await owned('x', 'target')
  const target = await claim(path)
  await rename(join(folder, 'x'), join(folder, 'x-aside'))
  execFileSync('mkfifo', [join(folder, 'x')])
  await expect(target.syncDirectories()).resolves.toBeUndefined()
  await target.keep()
})

test.runIf(isRoot)('what root has left is no riddle to others: they are told who may take it up', async () => {
  await chmod(folder, 0o755)
  const path = await owned('target')
  const target = await claim(path)
  try {
    const module = new URL('./target-facts.ts', import.meta.url).href
    const script = `
      const { inspectTarget } = await import(${JSON.stringify(module)})
      await inspectTarget(${JSON.stringify(path)}, undefined, 'resume').catch(({ code, hint }) => console.log(code, hint))`
    const flags = ['--disable-warning=ExperimentalWarning', '--input-type=module', '-e', script]
    const told = execFileSync(process.execPath, flags, { uid: 65_534, gid: 65_534, encoding: 'utf8' })
    expect(told).toBe('TARGET_UNUSABLE run the restore as the user who owns it, or as root\n')
  } finally {
    await target.keep()
  }
})

test('many that only look are not in each other’s way, nor in that of a restore', async () => {
  const path = await owned('target')
  await writeFile(join(path, 'postmaster.pid'), '1\n/x\ntidemark restore 00\n')
  const looks = Array.from({ length: 24 }, () => refuseIfHeld(path, path, 'unlocked'))
  expect(await Promise.all(looks)).toHaveLength(24)
  await rm(join(path, 'postmaster.pid'))
  const { ino } = await stat(path)
  const target = await claim(path)
  expect(await markerOf(path)).toMatchObject({ directory: { inode: ino } })
  await expect(refuseIfHeld(path, path, 'unlocked')).rejects.toMatchObject({ code: 'TARGET_IN_USE' })
  await target.keep()
})
