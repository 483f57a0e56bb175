/** Disks that fill up in the middle. Needs root, for small file systems of its own. */
import { appendFile, mkdir, readdir, rm, stat } from 'node:fs/promises'
import { type TestPostgres, adoptPostgres, runTool, startPostgres, unprivilegedUser, until } from '@tidemark/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Fleet } from '../../support/fleet.ts'
import { fillSampleCluster, fingerprint } from '../../support/sample-cluster.ts'

const isRoot = process.getuid?.() === 0
if (!isRoot) process.stderr.write('not root: tests of full disks are skipped, they mount small file systems\n')

let resources: AsyncDisposableStack
let source: TestPostgres
beforeAll(async () => {
  if (!isRoot) return
  resources = new AsyncDisposableStack()
  source = resources.use(await startPostgres())
  await fillSampleCluster(source, 1)
})
afterAll(() => resources?.disposeAsync())

class SmallDisk implements AsyncDisposable {
  readonly path: string
  private constructor(path: string) {
    this.path = path
  }

  static async mount(path: string, size: string, options = ''): Promise<SmallDisk> {
    await mkdir(path)
    await runTool('mount', ['-t', 'tmpfs', '-o', `size=${size}${options}`, 'tmpfs', path])
    return new SmallDisk(path)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await runTool('umount', [this.path])
  }
}

describe.skipIf(!isRoot)('a disk fills up', () => {
  test('under an optional repository in mid-backup: it is dropped, and the backup stands in the required one', async () => {
    await using fleet = await Fleet.create({
      clusters: { main: source },
      repositories: { local: { folder: 'local' }, small: { folder: 'small', required: false } },
    })
    // Room for the first pack of 4 MiB, the keyring and begin objects; not for the second pack.
    await using _disk = await SmallDisk.mount(fleet.folder.join('small'), '7m')
    await fleet.initRepositories()

    const result = await fleet.backupLocally()

    expect(result.repositories).toEqual([
      { name: 'local', outcome: 'stored' },
      { name: 'small', outcome: 'dropped' },
    ])
    expect((await fleet.listed()).map(({ repositories }) => repositories)).toEqual([['local']])
    expect((await fleet.verifyLocally('latest')).repositories).toMatchObject([{ name: 'local', ok: true }])
    expect(await fleet.leftovers('local', 'small')).toEqual([])
  })

  test('under a required repository in mid-backup: the backup fails, says so, and is listed nowhere', async () => {
    await using fleet = await Fleet.create({
      clusters: { main: source },
      repositories: { local: { folder: 'local' }, small: { folder: 'small' } },
    })
    await using _disk = await SmallDisk.mount(fleet.folder.join('small'), '7m')
    await fleet.initRepositories()

    const failed = await fleet.cli(['--json', 'backup', 'base', 'main', '--local'])

    expect(failed.code).toBe(3)
    const { error } = JSON.parse(failed.stderr) as { error: { code: string; facts: object; hint: string } }
    expect(error).toMatchObject({
      code: 'REQUIRED_REPOSITORY_FAILED',
      facts: { repository: 'small', causeCode: 'STORE_FULL' },
    })
    expect(await fleet.listed()).toEqual([])
    expect(await fleet.leftovers('local', 'small')).toEqual([])
  })

  test('under a restore: it fails, says so, keeps what it wrote, and goes on once there is room', async () => {
    await using fleet = await Fleet.create({
      clusters: { main: source },
      repositories: { local: { folder: 'local' } },
    })
    await fleet.initRepositories()
    await fleet.backupLocally()
    const before = await fingerprint(source)
    const target = fleet.folder.join('target')
    await using disk = await SmallDisk.mount(target, '160m', `,mode=0700,uid=${unprivilegedUser()?.uid}`)
    const hog = fleet.folder.join('target', 'hog')
    await using command = fleet.beginCli(['restore', 'run', 'latest', '--target', target, '--local'])
    // Somebody else fills the disk after the plan has found room enough: no plan can foresee that.
    await until(() => stat(`${target}/base`), { everyMs: 1, what: 'the layout to begin' })
    command.signal('SIGSTOP')
    const chunk = Buffer.alloc(1_048_576, 7)
    const fits = (): Promise<boolean> =>
      appendFile(hog, chunk).then(
        () => true,
        () => false,
      )
    while (await fits());
    command.signal('SIGCONT')

    const ending = await command.ended

    expect(ending.code).toBe(3)
    expect(command.stderr).toMatch(/^CODE: TARGET_WRITE_FAILED$/m)
    expect(command.stderr).toContain('the disk filled up')
    await rm(hog, { force: true })
    expect(await readdir(`${disk.path}/global`).catch(() => [])).not.toContain('pg_control')
    const resume = ['restore', 'run', 'latest', '--target', target, '--local', '--resume']
    expect(await fleet.cli(resume)).toMatchObject({ code: 0 })
    await using restored = await adoptPostgres({ dataDirectory: target })
    expect(await fingerprint(restored)).toEqual(before)
  })
})
