import { randomBytes } from 'node:crypto'
import { chown, lstat, mkdir, mkdtemp, readFile, readdir, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { TargetNotEmptyError, TargetUnusableError, TargetWriteError } from '../errors.ts'
import { TargetDirectory, inspectTarget } from './target-directory.ts'

const FENCE = 'tidemark_restore.json'
/** Given by name, so that the tests run as root and as anybody. */
const OWNER = process.getuid?.() === 0 ? { uid: 12_345, gid: 12_345 } : undefined
let folder = ''
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tidemark-target-'))
})
afterEach(() => rm(folder, { recursive: true }))

const claim = (path: string): Promise<TargetDirectory> => TargetDirectory.claim(path, OWNER, { backupId: 'b' })

test('looking changes nothing', async () => {
  const facts = await inspectTarget(join(folder, 'new'), OWNER)
  expect(facts).toMatchObject({ exists: false, freeBytes: expect.any(Number) })
  expect(await readdir(folder)).toEqual([])
  await mkdir(join(folder, 'empty'))
  expect(await inspectTarget(join(folder, 'empty'), OWNER)).toMatchObject({ exists: true })
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
  expect(outcomes.map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected'])
  const failed = outcomes.find((outcome) => outcome.status === 'rejected')
  expect(failed?.reason).toBeInstanceOf(TargetNotEmptyError)
  expect(await readdir(path)).toEqual([FENCE])
  expect(JSON.parse(await readFile(join(path, FENCE), 'utf8'))).toEqual({ state: 'incomplete', backupId: 'b' })
})

test('files have their size, mode and name, byte for byte, and nothing is made twice', async () => {
  const target = await claim(join(folder, 'target'))
  const odd = 'odd \xfc \x01 "x"'
  await target.makeDirectory('base', 0o700)
  await target.makeDirectory('base/1', 0o750)
  await target.makeFile(`base/1/${odd}`, 0o600, 8192)
  await target.makeFile('base/1/empty', 0o600, 0)
  const made = await readdir(Buffer.from(join(folder, 'target', 'base', '1')), { encoding: 'buffer' })
  expect(made.map((name) => name.toString('latin1')).toSorted()).toEqual(['empty', odd])
  const stat = await lstat(Buffer.from(target.absolute(`base/1/${odd}`), 'latin1'))
  expect({ size: stat.size, mode: stat.mode & 0o777, uid: stat.uid }).toEqual({
    size: 8192,
    mode: 0o600,
    uid: OWNER?.uid ?? process.getuid?.(),
  })
  await expect(target.makeFile('base/1/empty', 0o600, 0)).rejects.toThrow(TargetWriteError)
  await expect(target.makeFile('no/folder', 0o600, 0)).rejects.toThrow(TargetWriteError)
})

test('a link that lies in the way is not written through', async () => {
  const target = await claim(join(folder, 'target'))
  await writeFile(join(folder, 'outside'), 'untouched')
  await symlink(join(folder, 'outside'), join(folder, 'target', 'f'))
  await expect(target.makeFile('f', 0o600, 10)).rejects.toThrow(TargetWriteError)
  await expect(target.writeFile('f', randomBytes(3))).rejects.toThrow(TargetWriteError)
  expect(await readFile(join(folder, 'outside'), 'utf8')).toBe('untouched')
})

test('a finished file gets its real name, and the fence says that the directory is whole', async () => {
  const path = join(folder, 'target')
  const target = await claim(path)
  await target.makeDirectory('global', 0o700)
  await target.writeFile('global/pg_control.tidemark', Buffer.from('control'))
  await target.promote('global/pg_control.tidemark', 'global/pg_control')
  await target.syncDirectories()
  await target.complete({ backupId: 'b', note: 'ü' })
  expect((await readdir(path, { recursive: true })).toSorted()).toEqual(['global', 'global/pg_control', FENCE])
  expect(JSON.parse(await readFile(join(path, FENCE), 'utf8'))).toEqual({ state: 'complete', backupId: 'b', note: 'ü' })
})

test.each([true, false])('what a failed restore made is taken away (the directory was there: %s)', async (existed) => {
  const path = join(folder, 'target')
  if (existed) await mkdir(path)
  const target = await claim(path)
  await target.makeDirectory('base', 0o700)
  await target.makeFile('base/f', 0o600, 10)
  await target.discard()
  expect(await readdir(folder)).toEqual(existed ? ['target'] : [])
  expect(existed ? await readdir(path) : []).toEqual([])
})

test.runIf(process.getuid?.() === 0)(
  "as root, the directory is root's alone until it is complete, and links planted in it are not followed",
  async () => {
    const path = join(await mkdtemp(join(tmpdir(), 'tidemark-owner-')), 'target')
    await mkdir(path, { mode: 0o777 })
    await chown(path, 65_534, 65_534)
    const target = await TargetDirectory.claim(path, undefined, {})
    expect(await lstat(path)).toMatchObject({ uid: 0, mode: 0o40700 })

    await mkdir(join(path, '..', 'victim'), { mode: 0o700 })
    await symlink('../victim', join(path, 'pg_wal'))
    await expect(target.makeDirectory('pg_wal', 0o700)).rejects.toThrow(TargetWriteError)
    expect((await lstat(join(path, '..', 'victim'))).uid).toBe(0)
    await rm(join(path, 'pg_wal'))

    await target.makeFile('server.key', 0o400, 10)
    expect((await lstat(join(path, 'server.key'))).mode & 0o777).toBe(0o600)
    await target.sync('server.key')
    await target.complete({})
    expect(await lstat(path)).toMatchObject({ uid: 65_534 })
    expect(await lstat(join(path, 'server.key'))).toMatchObject({ uid: 65_534, mode: 0o100400 })
    await rm(join(path, '..'), { recursive: true })
  },
)
