/** What is asked for cannot be done: one exit code and one CODE line each, and nothing is changed. */
import { deepEqual } from 'node:assert/strict'
import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { once } from 'node:events'
import { type TestPostgres, runTool, sharedS3, startPostgres, unprivilegedUser } from '@tidemark/testkit'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Fleet, awsEnvironment, bucketRepository } from '../../support/fleet.ts'

const BACKUP = ['backup', 'base', 'main', '--local']
/** Some refusals only root can arrange. */
const notRoot = process.getuid?.() !== 0
if (notRoot) process.stderr.write('not root: tests that mount a file system or change users are skipped\n')

let resources: AsyncDisposableStack
let source: TestPostgres
let fleet: Fleet
let backupId: string
beforeAll(async () => {
  resources = new AsyncDisposableStack()
  source = resources.use(await startPostgres())
  await source.query("CREATE ROLE plain LOGIN PASSWORD 'plain'")
  fleet = resources.use(
    await Fleet.create({ clusters: { main: source }, repositories: { local: { folder: 'local' } } }),
  )
  await fleet.initRepositories()
  ;({ backupId } = await fleet.backupLocally())
})
afterAll(async () => {
  const listed = await fleet.listed()
  deepEqual([listed.map((backup) => backup.backupId), await fleet.leftovers('local')], [[backupId], []])
  await resources.disposeAsync()
})

/** Every object of the file repository: what a refused command must not change. */
const objects = async (): Promise<string[]> =>
  (await readdir(fleet.folder.join('local'), { recursive: true })).toSorted()

test.each([
  { what: 'another key', key: '7'.repeat(64), code: 3, problem: 'KEY_WRONG' },
  { what: 'a text that is no key', key: 'secret-but-no-key', code: 3, problem: 'CONFIG_INVALID' },
])('a backup with $what is refused, and writes nothing', async ({ key, code, problem }) => {
  const before = await objects()

  const refused = await fleet.cli(BACKUP, { env: { BACKUP_ENCRYPTION_KEY: key } })

  expect(refused).toMatchObject({ code, problem })
  expect(refused.stderr).toMatch(/^HINT: ./m)
  expect(refused.stderr).not.toContain(key)
  expect(await objects()).toEqual(before)
})

test('without a key nothing is written in the clear: a backup is refused', async () => {
  const before = await objects()
  const refused = await fleet.cli(BACKUP, { env: { BACKUP_ENCRYPTION_KEY: '' } })
  expect(refused).toMatchObject({ code: 3, problem: 'KEY_MISSING' })
  expect(await objects()).toEqual(before)
})

test('a restore with another key is refused before the target is touched', async () => {
  const target = await fleet.newTarget('wrong-key')
  const refused = await fleet.cli(['restore', 'run', 'latest', '--target', target, '--local'], {
    env: { BACKUP_ENCRYPTION_KEY: '7'.repeat(64) },
  })
  expect(refused).toMatchObject({ code: 3, problem: 'KEY_WRONG' })
  expect(await readdir(target)).toEqual([])
})

test.each([
  { what: 'a port where nobody listens', node: { port: 1 }, code: 6, problem: 'PG_UNREACHABLE' },
  {
    what: 'a wrong password',
    user: 'postgres',
    env: { PASSWORD_OF_MAIN: 'wrong' },
    code: 3,
    problem: 'PG_AUTH_FAILED',
  },
  {
    what: 'a role without REPLICATION',
    user: 'plain',
    env: { PASSWORD_OF_MAIN: 'plain' },
    code: 3,
    problem: 'PG_PREFLIGHT_FAILED',
    said: 'ALTER ROLE "plain" REPLICATION;',
  },
])('a backup over $what fails with what to do, and writes nothing', async (given) => {
  const before = await objects()
  const nodes = [{ host: source.host, port: source.port, ...given.node }]
  const cluster = { nodes, user: given.user ?? source.user, password: { env: 'PASSWORD_OF_MAIN' } }
  await fleet.configure({ clusters: { main: cluster } })
  try {
    const failed = await fleet.cli(BACKUP, given.env === undefined ? {} : { env: given.env })
    expect(failed).toMatchObject({ code: given.code, problem: given.problem })
    expect(failed.stderr).toContain(given.said ?? 'HINT: ')
    expect(failed.stderr).not.toContain(source.password)
  } finally {
    await fleet.configure({})
  }
  expect(await objects()).toEqual(before)
})

test('a server that accepts and never answers is given up', async () => {
  const silent = createServer(() => {})
  silent.listen(0, '127.0.0.1')
  await once(silent, 'listening')
  const { port } = silent.address() as { port: number }
  await fleet.configure({ clusters: { main: { nodes: [{ host: '127.0.0.1', port }] } } })
  try {
    expect(await fleet.cli(BACKUP)).toMatchObject({ code: 6, problem: 'PG_UNREACHABLE' })
  } finally {
    await fleet.configure({})
    silent.close()
  }
})

test.each([
  { args: ['backup', 'base', 'other', '--local'], code: 3, problem: 'UNKNOWN_CLUSTER' },
  { args: [...BACKUP, '--repository', 'elsewhere'], code: 3, problem: 'UNKNOWN_REPOSITORY' },
  { args: [...BACKUP, '--max-rate', '1'], code: 2, problem: 'USAGE' },
  { args: [...BACKUP, '--level', '99'], code: 2, problem: 'USAGE' },
  { args: ['verify', 'ffffffffffffffff', '--local'], code: 4, problem: 'BACKUP_NOT_FOUND' },
  { args: ['restore', 'plan', 'ffffffffffffffff', '--target', '/nowhere/pg'], code: 4, problem: 'BACKUP_NOT_FOUND' },
  { args: ['restore', 'plan', 'latest', '--target', '/nowhere/pg'], code: 3, problem: 'TARGET_UNUSABLE' },
  { args: ['restore', 'run', 'latest', '--target', '/nowhere/pg'], code: 2, problem: 'USAGE' },
  { args: ['backup', 'base', 'main'], code: 6, problem: 'API_UNREACHABLE' },
  { args: ['--config', '/nowhere/tidemark.yaml', 'repo', 'info'], code: 3, problem: 'CONFIG_INVALID' },
  { args: ['--repository-url', 'file:///nowhere/repo', 'backups', 'list'], code: 3, problem: 'STORE_MISSING' },
])('tidemark $args: exit code $code, $problem', async ({ args, code, problem }) => {
  const { stderr, stdout, ...ending } = await fleet.cli(args)
  expect(ending).toEqual({ code, signal: null, problem })
  expect(stderr).toMatch(/^ERROR: .+\n(?:.*\n)*HINT: .+\n(?:.*\n)*CODE: /m)
  expect(stderr).not.toContain('    at ')
  expect(stdout).toBe('')
})

test('an unknown option or command is a usage error, exit code 2', async () => {
  for (const args of [['backups', 'list', '--bogus'], ['bogus'], ['backup', 'base'], ['verify', 'x', '--level', 'y']]) {
    const { code, stderr } = await fleet.cli(args)
    expect(code).toBe(2)
    expect(stderr).toContain('error: ')
  }
})

test('all problems of a configuration are reported at once, each with its place, and no secret is shown', async () => {
  await fleet.configure({
    clusters: { main: { nodes: [], user: 'u', password: 'hunter2' } },
    repositories: { local: { url: 'ftp://host/path' } },
    bakcup: {},
  })
  try {
    const { code, problem, stderr } = await fleet.cli(['repo', 'info'])
    expect({ code, problem }).toEqual({ code: 3, problem: 'CONFIG_INVALID' })
    for (const place of ['clusters.main.nodes', 'clusters.main.password', 'repositories.local.url', '"bakcup"'])
      expect(stderr).toContain(place)
    expect(stderr).not.toContain('hunter2')
  } finally {
    await fleet.configure({})
  }
})

test('`repo init` of what is a repository already is refused and changes nothing', async () => {
  const before = await objects()
  expect(await fleet.cli(['repo', 'init'])).toMatchObject({ code: 7, problem: 'REPOSITORY_EXISTS' })
  await mkdir(fleet.folder.join('occupied'))
  await writeFile(fleet.folder.join('occupied', 'notes'), 'mine')
  await fleet.configure({ repositories: { local: { url: `file://${fleet.folder.join('occupied')}`, shared: true } } })
  try {
    expect(await fleet.cli(['repo', 'init'])).toMatchObject({ code: 7, problem: 'REPOSITORY_EXISTS' })
  } finally {
    await fleet.configure({})
  }
  expect((await readdir(fleet.folder.join('occupied'))).filter((name) => name !== '.tmp')).toEqual(['notes'])
  expect(await objects()).toEqual(before)
})

test('a bucket that is not there, or that refuses the credentials, is named as such', async () => {
  await using s3 = await sharedS3()
  const { endpoint, url } = await bucketRepository(s3)
  const list = (location: string) => ['--repository-url', location, '--endpoint', endpoint, 'backups', 'list']
  const env = awsEnvironment(s3)

  expect(await fleet.cli(list('s3://tidemark-no-such-bucket/x'), { env })).toMatchObject({
    code: 3,
    problem: 'STORE_MISSING',
  })
  expect(await fleet.cli(list(url), { env })).toMatchObject({ code: 3, problem: 'REPOSITORY_NOT_INITIALISED' })
  expect(await fleet.cli(list(url), { env: { ...env, AWS_SECRET_ACCESS_KEY: 'wrong' } })).toMatchObject({
    code: 3,
    problem: 'STORE_ACCESS_DENIED',
  })
})

test('a target that is not empty is refused, and what is in it stays as it was', async () => {
  const target = await fleet.newTarget('occupied-target')
  await writeFile(`${target}/mine`, 'mine')
  const refused = await fleet.cli(['restore', 'run', 'latest', '--target', target, '--local'])
  expect(refused).toMatchObject({ code: 7, problem: 'TARGET_NOT_EMPTY' })
  expect(await readdir(target)).toEqual(['mine'])
})

test('a relative target is taken from the working directory', async () => {
  const target = await fleet.newTarget('relative')
  expect(await fleet.cli(['restore', 'run', 'latest', '--target', 'relative', '--local'])).toMatchObject({ code: 0 })
  expect(await readdir(target)).toContain('PG_VERSION')
})

test.skipIf(notRoot)('a target that would belong to root is refused before it is made', async () => {
  const target = fleet.folder.join('roots')
  const refused = await fleet.cli(['restore', 'run', 'latest', '--target', target, '--local'])
  expect(refused).toMatchObject({ code: 3, problem: 'TARGET_UNUSABLE' })
  expect(await readdir(fleet.folder.path)).not.toContain('roots')
})

test.skipIf(notRoot)('a disk that is too small is refused before anything is written', async () => {
  const small = fleet.folder.join('small')
  await mkdir(small)
  await runTool('mount', ['-t', 'tmpfs', '-o', 'size=8m,mode=0700,uid=' + unprivilegedUser()?.uid, 'tmpfs', small])
  try {
    const refused = await fleet.cli(['restore', 'run', 'latest', '--target', small, '--local'])
    expect(refused).toMatchObject({ code: 7, problem: 'TARGET_DISK_SPACE' })
    expect(await readdir(small)).toEqual([])
  } finally {
    await runTool('umount', [small])
  }
})

test.skipIf(notRoot)(
  'a repository that may not be written is refused, and says whose rights to look at; it can still be read',
  async () => {
    const as = unprivilegedUser()
    const locked = await fleet.newTarget('locked')
    await fleet.configure({ repositories: { local: { url: `file://${locked}`, shared: true } } })
    try {
      expect(await fleet.cli(['repo', 'init'], { as })).toMatchObject({ code: 0 })
      await runTool('chmod', ['-R', 'a-w', locked])
      const before = await readdir(locked, { recursive: true })

      expect(await fleet.cli(BACKUP, { as })).toMatchObject({ code: 3, problem: 'STORE_ACCESS_DENIED' })
      expect(await fleet.cli(['backups', 'list'], { as })).toMatchObject({ code: 0, stdout: 'no backups\n' })
      expect(await readdir(locked, { recursive: true })).toEqual(before)
    } finally {
      await fleet.configure({})
    }
  },
)
