/** Sweeps in a loop, beside processes that write: debris goes, and no live attempt loses an object. */
import { readdir, stat, utimes } from 'node:fs/promises'
import { join } from 'node:path'
import { randomBytes } from 'node:crypto'
import { KeyEncryptionKey } from '@tidemark/crypto'
import { silentLogger, systemClock } from '@tidemark/kernel'
import { sweepRepository, verifyBackup } from '@tidemark/operations'
import { type Repository, initRepositorySet, listBackups } from '@tidemark/repository'
import { TemporaryFolder, until } from '@tidemark/testkit'
import { expect, test } from 'vitest'
import { Program } from '../../support/processes.ts'
import { filePlace, noDeadline } from '../../support/repositories.ts'

const DAY_MS = 24 * 3_600_000

test('of two writers on their own and one that is killed, only what the killed one left is swept', async () => {
  await using folder = await TemporaryFolder.create('sweep')
  const directory = folder.join('repository')
  const key = randomBytes(32)
  const place = await filePlace('shared', directory)
  const deps = { clock: systemClock, logger: silentLogger, signal: noDeadline, progress: () => {} }
  const { set } = await initRepositorySet([place], [new KeyEncryptionKey(key)], undefined, deps)
  const [repository] = set.repositories as [Repository]
  const system = join(directory, 'clusters', 'main', '7301234567890123456')
  const write = (name: string): Program =>
    new Program('tests/support/backup-process.ts', [directory, key.toString('hex'), name], {
      env: {},
      cwd: folder.path,
      openInput: true,
    })

  // The one that dies: killed while packs of an attempt of its own are there and no record is.
  await using doomed = write('doomed')
  const idsOf = async (kind: 'base' | 'records'): Promise<string[]> =>
    (await readdir(join(system, kind)).catch(() => [])).map((name) => /[0-9a-f]{16}/.exec(name.slice(-21))?.[0] ?? '')
  const packsOf = (id: string): Promise<string[]> => readdir(join(system, 'base', id)).catch(() => [])
  await until(
    async () => {
      const committed = await idsOf('records')
      const open = (await idsOf('base')).find((id) => !committed.includes(id))
      return open !== undefined && (await packsOf(open)).length > 0
    },
    { everyMs: 5, what: 'an attempt with a pack' },
  )
  await doomed.end('SIGKILL')
  const committedBefore = await idsOf('records')
  const dead = (await idsOf('base')).filter((id) => !committedBefore.includes(id))
  await age(system, dead)
  // Only a kill between the last pack and the record leaves nothing dead; then there is nothing to sweep either.
  process.stderr.write(`left by the killed writer: ${dead.length} attempts\n`)

  const writers = [write('one'), write('two')]
  let sweeps = 0
  let removed = 0
  let lines = 0
  while (lines < 6) {
    const request = { cluster: undefined, dryRun: false }
    const outcome = await sweepRepository(repository, request, { ...deps, publicKey: set.publicKey })
    removed += outcome.objects
    sweeps += 1
    for (const { backupId } of outcome.folders) expect(dead).toContain(backupId)
    lines = writers.reduce((sum, { stdout }) => sum + stdout.split('\n').length - 1, 0)
  }
  for (const writer of writers) {
    writer.endInput()
    expect(await writer.ended).toMatchObject({ code: 0 })
  }
  process.stderr.write(`${sweeps} sweeps beside ${lines} backups removed ${removed} objects\n`)

  expect(sweeps).toBeGreaterThan(5)
  expect((await idsOf('base')).filter((id) => dead.includes(id))).toEqual([])
  expect(removed > 0).toBe(dead.length > 0)
  const { backups } = await listBackups(repository, set.publicKey, { limit: 1000 }, noDeadline)
  expect(backups.length).toBeGreaterThanOrEqual(6)
  for (const { backupId } of backups) {
    const verify = { backup: backupId, cluster: 'main', repository: undefined, level: 'packs' } as const
    const verdict = await verifyBackup(verify, { ...deps, set, keyring: undefined, threads: 1 })
    expect(verdict.repositories).toMatchObject([{ ok: true, problems: [] }])
  }
})

/** Makes all objects of these attempts two days old, by the file system's clock. */
async function age(system: string, ids: readonly string[]): Promise<void> {
  const begins = await readdir(join(system, 'begin'))
  for (const id of ids) {
    const packs = (await readdir(join(system, 'base', id))).map((name) => join(system, 'base', id, name))
    const own = begins.filter((name) => name.startsWith(id)).map((name) => join(system, 'begin', name))
    for (const path of [...packs, ...own]) {
      const old = new Date((await stat(path)).mtimeMs - 2 * DAY_MS)
      await utimes(path, old, old)
    }
  }
}
