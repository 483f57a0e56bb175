import { randomBytes } from 'node:crypto'
import {
  chown,
  cp,
  lstat,
  mkdir,
  mkdtemp,
  readFile,
  readdir,
  readlink,
  rename,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import {
  TargetInUseError,
  TargetNotEmptyError,
  TargetNotResumableError,
  TargetUnusableError,
  TargetWriteError,
} from '../errors.ts'
import { OWNER, claim, fence, placeOf } from './claim.test-support.ts'
import { inspectTarget } from './target-facts.ts'

const FENCE = 'tidemark_restore.json'
const LOCK = 'postmaster.pid'
/** No process has it: the kernel's largest is 2^22. */
const NOBODY = 4_194_305
let folder = ''
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tidemark-target-'))
})
const undo: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const each of undo.splice(0)) await each()
  await rm(folder, { recursive: true })
})

const markerOf = async (path: string): Promise<unknown> => JSON.parse(await readFile(join(path, FENCE), 'utf8'))

/** A finished restore of one file and pg_control. */
async function restored(path: string): Promise<void> {
  const target = await claim(path)
  await target.makeDirectory('global', 0o700)
  await target.writeFile('global/pg_control.tidemark', Buffer.from('control'))
  await target.syncDirectories()
  await target.complete('now')
}

test('looking changes nothing', async () => {
  const facts = await inspectTarget(join(folder, 'new'), OWNER)
  expect(facts).toMatchObject({ seen: undefined, freeBytes: expect.any(Number) })
  expect(await readdir(folder)).toEqual([])
  await mkdir(join(folder, 'empty'))
  expect(await inspectTarget(join(folder, 'empty'), OWNER)).toMatchObject({ seen: { ino: expect.any(BigInt) } })
})

test('a directory that holds anything, a file and a link are refused', async () => {
  await mkdir(join(folder, 'full'))
  await writeFile(join(folder, 'full', '.hidden'), '')
  await writeFile(join(folder, 'file'), '')
  await mkdir(join(folder, 'elsewhere'))
  await symlink(join(folder, 'elsewhere'), join(folder, 'link'))
  for (const name of ['full', 'file', 'link']) {
    await expect(claim(join(folder, name))).rejects.toThrow(TargetNotEmptyError)
  }
  expect(await readdir(join(folder, 'elsewhere'))).toEqual([])
  await expect(claim(join(folder, 'no', 'parent'))).rejects.toThrow(TargetUnusableError)
  await expect(claim(join(folder, 'file', 'below'))).rejects.toThrow(TargetUnusableError)
})

test.runIf(OWNER !== undefined)('root does not make a directory that would belong to root', async () => {
  await expect(inspectTarget(join(folder, 'new'), undefined)).rejects.toThrow(TargetUnusableError)
})

test('of two restores into one directory, one is refused', async () => {
  const path = join(folder, 'target')
  await mkdir(path)
  const outcomes = await Promise.allSettled([claim(path), claim(path)])
  for (const outcome of outcomes) if (outcome.status === 'fulfilled') undo.push(() => outcome.value.keep())
  expect(outcomes.map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected'])
  const failed = outcomes.find((outcome) => outcome.status === 'rejected')
  expect(failed?.reason).toBeInstanceOf(TargetInUseError)
  expect((await readdir(path)).toSorted()).toEqual([LOCK, FENCE].toSorted())
  expect(await markerOf(path)).toMatchObject({ state: 'incomplete', backupId: fence.backupId })
})

test('a link that lies in the way is not written through', async () => {
  const target = await claim(join(folder, 'target'))
  await writeFile(join(folder, 'outside'), 'untouched')
  await symlink(join(folder, 'outside'), join(folder, 'target', 'f'))
  await expect(target.writeFile('f', randomBytes(3))).rejects.toThrow(TargetWriteError)
  expect(await readFile(join(folder, 'outside'), 'utf8')).toBe('untouched')
  await target.keep()
})

test('a finished file gets its real name, the fence says that the directory is whole, and the lock is gone', async () => {
  const path = join(folder, 'target')
  await restored(path)
  expect((await readdir(path, { recursive: true })).toSorted()).toEqual(['global', 'global/pg_control', FENCE])
  expect(await markerOf(path)).toMatchObject({ state: 'complete', systemId: '7', finishedAt: 'now' })
})

test.each([true, false])(
  'what a discarded restore made is taken away (the directory was there: %s)',
  async (existed) => {
    const path = join(folder, 'target')
    if (existed) await mkdir(path)
    const target = await claim(path)
    await target.makeDirectory('base', 0o700)
    await target.writeFile('base/f', randomBytes(10))
    await target.discard()
    expect(await readdir(folder)).toEqual(existed ? ['target'] : [])
    expect(existed ? await readdir(path) : []).toEqual([])
  },
)

test('a restore that is given up keeps its work behind the fence; only a resuming one gets in', async () => {
  const path = join(folder, 'target')
  const target = await claim(path)
  await target.makeDirectory('global', 0o700)
  await target.writeFile('global/pg_control', Buffer.from('control'))
  await target.keep()
  expect(await readdir(join(path, 'global'))).toEqual(['pg_control.tidemark'])
  expect(await markerOf(path)).toMatchObject({ state: 'incomplete' })
  await expect(claim(path)).rejects.toThrow(/unfinished restore of backup 00112233445566ff/)
  await expect(claim(path, { mode: 'delta' })).rejects.toThrow(TargetNotResumableError)
  const again = await claim(path, { mode: 'resume' })
  expect(await readdir(path)).toContain(LOCK)
  await again.keep()
})

test('a delta hides pg_control and says so before anything else happens', async () => {
  const path = join(folder, 'target')
  await restored(path)
  await expect(claim(path, { mode: 'resume' })).rejects.toThrow(TargetNotResumableError)
  const target = await claim(path, { mode: 'delta', fence: { ...fence, backupId: 'ffeeddccbbaa9988' } })
  expect(await readdir(join(path, 'global'))).toEqual(['pg_control.tidemark'])
  expect(await markerOf(path)).toMatchObject({ state: 'incomplete', backupId: 'ffeeddccbbaa9988' })
  await target.keep()
})

test('a copy of a restored directory is no target for a delta: its marker has the tablespaces of the original', async () => {
  const [path, copy] = [join(folder, 'target'), join(folder, 'copy')]
  await restored(path)
  await cp(path, copy, { recursive: true })
  await expect(claim(copy, { mode: 'delta' })).rejects.toThrow(TargetNotResumableError)
  await rm(path, { recursive: true })
  // Nor in its place: it is another directory.
  await rename(copy, path)
  await expect(claim(path, { mode: 'delta' })).rejects.toThrow(/was written for/)
})

test('a restore that was stopped between its last rename and the word is finished by the next, which changes nothing else', async () => {
  const path = join(folder, 'target')
  await restored(path)
  const { finishedAt: _, ...marker } = (await markerOf(path)) as Record<string, unknown>
  await writeFile(join(path, FENCE), JSON.stringify({ ...marker, state: 'incomplete', ready: true }))
  await expect(claim(path)).rejects.toThrow(TargetNotEmptyError)
  await expect(claim(path, { mode: 'delta' })).rejects.toThrow(TargetNotResumableError)
  const target = await claim(path, { mode: 'resume' })
  expect(target.isReady).toBe(true)
  expect(await readdir(join(path, 'global'))).toEqual(['pg_control'])

  // Given up once more: it cannot start, and is as whole as before.
  await target.keep()
  expect(await readdir(join(path, 'global'))).toEqual(['pg_control.tidemark'])
  const again = await claim(path, { mode: 'resume' })
  expect(again.isReady).toBe(true)
  await again.complete('later')
  expect(await readdir(join(path, 'global'))).toEqual(['pg_control'])
  expect(await markerOf(path)).toMatchObject({ state: 'complete', finishedAt: 'later' })
  expect(await markerOf(path)).not.toHaveProperty('ready')
})

test('a directory that is ready for one restore is not so for another', async () => {
  const path = join(folder, 'target')
  await restored(path)
  const marker = (await markerOf(path)) as Record<string, unknown>
  await writeFile(join(path, FENCE), JSON.stringify({ ...marker, state: 'incomplete', ready: true }))
  const target = await claim(path, { mode: 'resume', fence: { ...fence, profile: 'production' } })
  expect(target.isReady).toBe(false)
  expect(await readdir(join(path, 'global'))).toEqual(['pg_control.tidemark'])
  expect(await markerOf(path)).not.toHaveProperty('ready')
  await target.keep()
})

test('an empty lock file is held: somebody is about to write it', async () => {
  const path = join(folder, 'target')
  await restored(path)
  await writeFile(join(path, LOCK), '')
  await expect(claim(path, { mode: 'delta' })).rejects.toThrow(TargetInUseError)
})

test('a directory that a live process holds is left alone, one that a dead process held is taken up', async () => {
  const path = join(folder, 'target')
  await restored(path)
  // The parent of this test is alive and not us.
  await writeFile(join(path, LOCK), `${process.ppid}\n${path}\n`)
  await expect(claim(path, { mode: 'delta' })).rejects.toThrow(TargetInUseError)
  expect(await readdir(join(path, 'global'))).toEqual(['pg_control'])
  expect(await markerOf(path)).toMatchObject({ state: 'complete' })
  await writeFile(join(path, LOCK), `${NOBODY}\n${path}\n`)
  const target = await claim(path, { mode: 'delta' })
  expect(Number.parseInt(await readFile(join(path, LOCK), 'utf8'), 10)).toBe(process.pid)
  await target.keep()
  expect(await readdir(path)).not.toContain(LOCK)
})

test('a directory that no restore made takes neither a delta nor a resuming restore', async () => {
  const path = join(folder, 'target')
  await mkdir(path)
  await writeFile(join(path, 'PG_VERSION'), '15')
  for (const text of [undefined, 'nonsense', '{"state":"complete","backupId":"00112233445566ff","cluster":"main"}']) {
    if (text !== undefined) await writeFile(join(path, FENCE), text)
    for (const mode of ['resume', 'delta'] as const)
      await expect(claim(path, { mode })).rejects.toThrow(TargetNotResumableError)
  }
})

test('tablespaces are linked, their directories made and given away, and taken away again with the rest', async () => {
  const path = join(folder, 'target')
  const space = join(folder, 'space')
  const later = join(folder, 'later')
  await mkdir(later)
  const target = await claim(path, {
    tablespaces: [
      { oid: '16400', path: space, place: await placeOf(space), linked: true },
      { oid: '16500', path: later, place: await placeOf(later), linked: false },
    ],
  })
  await target.makeDirectory('pg_tblspc', 0o700)
  await target.makeDirectory('pg_tblspc/16400/PG_15', 0o700)
  await target.linkTablespaces()
  await target.writeFile('pg_tblspc/16400/PG_15/f', Buffer.from('there'))
  expect(await readlink(join(path, 'pg_tblspc', '16400'))).toBe(space)
  expect(await readdir(join(path, 'pg_tblspc'))).toEqual(['16400'])
  expect(await readFile(join(space, 'PG_15', 'f'), 'utf8')).toBe('there')
  expect(await markerOf(path)).toMatchObject({ tablespaces: { 16400: space, 16500: later } })
  await target.discard()
  expect(await readdir(folder)).toEqual(['later'])
  expect(await readdir(later)).toEqual([])
})

test.runIf(process.getuid?.() === 0)(
  "as root, the directory is root's alone until it is complete, and links planted in it are not followed",
  async () => {
    const path = join(await mkdtemp(join(tmpdir(), 'tidemark-owner-')), 'target')
    await mkdir(path, { mode: 0o777 })
    await chown(path, 65_534, 65_534)
    const target = await claim(path, { owner: undefined })
    expect(await lstat(path)).toMatchObject({ uid: 0, mode: 0o40700 })

    await mkdir(join(path, '..', 'victim'), { mode: 0o700 })
    await symlink('../victim', join(path, 'pg_wal'))
    await target.makeDirectory('pg_wal', 0o750)
    expect((await lstat(join(path, '..', 'victim'))).uid).toBe(0)
    expect(await lstat(join(path, 'pg_wal'))).toMatchObject({ uid: 0, mode: 0o40700 })

    await target.writeFile('server.key', Buffer.from('key'), 0o400)
    await target.makeDirectory('global', 0o700)
    await target.writeFile('global/pg_control.tidemark', Buffer.from('control'))
    await target.syncDirectories()
    await target.complete('now')
    expect(await lstat(path)).toMatchObject({ uid: 65_534 })
    expect(await lstat(join(path, 'pg_wal'))).toMatchObject({ uid: 65_534, mode: 0o40750 })
    expect(await lstat(join(path, 'server.key'))).toMatchObject({ uid: 65_534, mode: 0o100400 })
    await rm(join(path, '..'), { recursive: true })
  },
)
