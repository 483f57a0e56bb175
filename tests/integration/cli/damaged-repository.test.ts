/** Bits rot, objects vanish: it is said exactly, a good copy elsewhere is used, and a bad one is never restored. */
import { deepEqual } from 'node:assert/strict'
import { copyFile, open, readFile, readdir, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { type TestPostgres, adoptPostgres, random, seed, startPostgres } from '@tidemark/testkit'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { Fleet } from '../../support/fleet.ts'
import { fillSampleCluster, fingerprint } from '../../support/sample-cluster.ts'

const chance = random(seed())

let resources: AsyncDisposableStack
let source: TestPostgres
let fleet: Fleet
let backupId: string
let before: Record<string, string>
const undo: (() => Promise<void>)[] = []

beforeAll(async () => {
  resources = new AsyncDisposableStack()
  source = resources.use(await startPostgres())
  await fillSampleCluster(source, 1)
  const repositories = { local: { folder: 'local' }, second: { folder: 'second' } }
  fleet = resources.use(await Fleet.create({ clusters: { main: source }, repositories }))
  await fleet.initRepositories()
  before = await fingerprint(source)
  ;({ backupId } = await fleet.backupLocally())
})
afterEach(async () => {
  for (const mend of undo.splice(0)) await mend()
  const { repositories } = await fleet.verifyLocally(backupId, 'packs')
  deepEqual(
    repositories.map(({ ok }) => ok),
    [true, true],
  )
})
afterAll(() => resources.disposeAsync())

/** The one object of repository `local` whose name ends so. */
async function objectPath(pattern: RegExp): Promise<string> {
  const found = (await readdir(fleet.folder.join('local'), { recursive: true })).find((name) => pattern.test(name))
  if (found === undefined) throw new Error(`no object like ${pattern}`)
  return fleet.folder.join('local', found)
}

/** Damages an object in repository `local`; the other repository keeps the good one. */
async function damage(pattern: RegExp, harm: (path: string) => Promise<void>): Promise<string> {
  const path = await objectPath(pattern)
  const kept = fleet.folder.join('kept')
  await copyFile(path, kept)
  undo.push(() => copyFile(kept, path))
  await harm(path)
  return path
}

async function flipBit(path: string): Promise<void> {
  await using file = await open(path, 'r+')
  const { size } = await file.stat()
  const at = chance.integer(0, size - 1)
  const byte = Buffer.alloc(1)
  await file.read(byte, 0, 1, at)
  byte[0] = (byte[0] ?? 0) ^ (1 << chance.integer(0, 7))
  await file.write(byte, 0, 1, at)
}

async function cutShort(path: string): Promise<void> {
  const { size } = await stat(path)
  await truncate(path, chance.integer(0, size - 1))
}

const PACK = /base\/.*\/pack-00002$/
const HARMS = [
  { what: 'a truncated pack', object: PACK, harm: cutShort },
  { what: 'a flipped bit in a pack', object: PACK, harm: flipBit },
  { what: 'a missing pack', object: PACK, harm: (path: string) => rm(path) },
  { what: 'a flipped bit in the file list', object: /files-00001$/, harm: flipBit },
  { what: 'a missing WAL segment', object: /\/wal\/.*-[0-9a-f]{32}$/, harm: (path: string) => rm(path) },
]

describe.each(HARMS)('$what', ({ object, harm }) => {
  test('is found by verify, which names it and exits with 5', async () => {
    const path = await damage(object, harm)
    const name = /(?:pack|files)-\d{5}|[0-9A-F]{24}/.exec(path)?.[0] ?? ''
    for (const level of ['packs', 'contents']) {
      const verified = await fleet.cli(['verify', backupId, '--local', '--level', level])
      expect(verified).toMatchObject({ code: 5, problem: 'VERIFY_FAILED' })
      expect(verified.stdout).toMatch(new RegExp(`local: .* DAMAGED[^]*${name}`))
      expect(verified.stdout).toMatch(/second: .* is good/)
    }
  })

  test('keeps that repository from being restored alone, and the target is left empty where that is asked for', async () => {
    await damage(object, harm)
    const target = await fleet.newTarget(`alone-${chance.integer(0, 1e9)}`)
    const alone = [
      'restore',
      'run',
      backupId,
      '--target',
      target,
      '--local',
      '--repository',
      'local',
      '--discard-on-failure',
    ]
    expect(await fleet.cli(alone)).toMatchObject({ code: 5, problem: 'BACKUP_INCOMPLETE' })
    expect(await readdir(target)).toEqual([])
  })

  test('does not matter to a restore from the set: the second repository has it', async () => {
    await damage(object, harm)
    const target = await fleet.newTarget(`set-${chance.integer(0, 1e9)}`)
    const { code, stderr } = await fleet.cli(['restore', 'run', 'latest', '--target', target, '--local'])
    expect(stderr).not.toContain('ERROR')
    expect(code).toBe(0)
    await using restored = await adoptPostgres({ dataDirectory: target })
    expect(await fingerprint(restored)).toEqual(before)
  })
})

test('the beginning of an id that two backups share is refused, and no guess is made', async () => {
  const path = await objectPath(new RegExp(`records/.*${backupId}\\.json$`))
  const sibling = path.replace(/.\.json$/, (end) => (end.startsWith('0') ? '1.json' : '0.json'))
  await copyFile(path, sibling)
  undo.push(() => rm(sibling))
  const target = await fleet.newTarget('ambiguous')

  const refused = await fleet.cli(['restore', 'run', backupId.slice(0, 15), '--target', target, '--local'])

  expect(refused).toMatchObject({ code: 2, problem: 'BACKUP_AMBIGUOUS' })
  expect(await readdir(target)).toEqual([])
})

test.each([
  { what: 'changed by one bit', harm: flipBit },
  {
    what: 'stripped of its signature',
    harm: async (path: string) => writeFile(path, `${(await readFile(path, 'utf8')).split('\n')[0]}\n`),
  },
])('a commit record $what is listed as untrusted, is not restored from, and stops no new backup', async ({ harm }) => {
  await damage(new RegExp(`records/.*${backupId}\\.json$`), harm)

  const listed = (await fleet.listed()).find((one) => one.backupId === backupId)
  expect(listed).toMatchObject({ backupId, repositories: ['second'], untrusted: ['local'] })
  const target = await fleet.newTarget(`record-${chance.integer(0, 1e9)}`)
  const alone = await fleet.cli(['restore', 'run', backupId, '--target', target, '--local', '--repository', 'local'])
  expect(alone.code).toBe(5)
  expect(alone.problem).toMatch(/^(SIGNATURE_REFUSED|DOCUMENT_DAMAGED)$/)
  expect(await readdir(target)).toEqual([])
  expect(await fleet.cli(['verify', backupId, '--local'])).toMatchObject({ code: 5, problem: 'VERIFY_FAILED' })
  expect(await fleet.cli(['restore', 'run', backupId, '--target', target, '--local'])).toMatchObject({ code: 0 })
  const { backupId: added } = await fleet.backupLocally()
  expect((await fleet.verifyLocally(added, 'packs')).repositories).toMatchObject([{ ok: true }, { ok: true }])
})
