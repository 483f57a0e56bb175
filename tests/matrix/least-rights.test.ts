/** The role of docs/supported.md, made with the page's own statements. */
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { Redacted, silentLogger, systemClock } from '@tidemark/kernel'
import { takeBaseBackup } from '@tidemark/operations'
import { type ConnectionTarget, preflight, readSourceDetails } from '@tidemark/postgres'
import { readPackTable, readSource } from '@tidemark/repository'
import { TemporaryFolder, adoptPostgres, startPostgres, testedPostgresVersions } from '@tidemark/testkit'
import { expect, test } from 'vitest'
import { filePlace, newTestSet, noDeadline, sealing } from '../support/repositories.ts'

const page = await readFile(new URL('../../docs/supported.md', import.meta.url), 'utf8')
const [create = '', ...grants] = (/```sql\n([\s\S]*?)```/.exec(page)?.[1] ?? '').trim().split('\n')

test.each(testedPostgresVersions())(
  'PostgreSQL %i: the page’s role takes a whole backup, and each of its grants is there for a reason',
  async (version) => {
    await using folder = await TemporaryFolder.create('rights')
    await using made = await startPostgres({ version })
    // As Debian has it: configuration outside of the data directory, in more than one file.
    const etc = await folder.serverFolder('etc')
    await made.stop()
    await mkdir(join(etc, 'conf.d'))
    for (const file of ['postgresql.conf', 'pg_hba.conf', 'pg_ident.conf']) {
      await rename(join(made.dataDirectory, file), join(etc, file))
    }
    const note = 'log_min_duration_statement = 12345\n'
    await writeFile(join(etc, 'conf.d', 'more.conf'), note)
    const own = await readFile(join(etc, 'postgresql.conf'), 'utf8')
    await writeFile(
      join(etc, 'postgresql.conf'),
      `${own}\ninclude_dir = 'conf.d'\nhba_file = '${etc}/pg_hba.conf'\nident_file = '${etc}/pg_ident.conf'\ndata_directory = '${made.dataDirectory}'\n`,
    )
    if (version >= 16) {
      await writeFile(join(etc, 'more_hba.conf'), 'local all nobody reject\n')
      const hba = await readFile(join(etc, 'pg_hba.conf'), 'utf8')
      await writeFile(join(etc, 'pg_hba.conf'), `${hba}\ninclude more_hba.conf\n`)
    }
    execFileSync('chown', ['-R', '--reference', made.dataDirectory, etc])
    await using server = await adoptPostgres({
      dataDirectory: made.dataDirectory,
      password: made.password,
      settings: { config_file: join(etc, 'postgresql.conf') },
    })
    await server.query('CREATE DATABASE closed')
    await server.query('REVOKE CONNECT ON DATABASE closed FROM PUBLIC')
    await server.query(create)
    const { host, port } = server
    const target: ConnectionTarget = { host, port, user: 'tidemark', password: new Redacted('change me') }
    const unread = async (): Promise<string[]> => {
      const facts = await preflight(target, { needWal: true }, noDeadline)
      const details = await readSourceDetails(target, facts, new Set(), noDeadline)
      return details.unread.map(({ what, reason }) => `${what}: ${reason}`).toSorted()
    }

    // Without a single grant: a backup all the same, and it says what it lacks.
    const places = await newTestSet([await filePlace('local', folder.join('local'))])
    const bare = await backUp(places, target)
    expect(bare.record.verdict).toBe('intact')
    expect(bare.source.unread.map(({ what }) => what)).toEqual(expect.arrayContaining(['settings', 'postgresql.conf']))
    expect(bare.source.configuration).toEqual([])

    for (const grant of grants) await server.query(grant)
    const whole = await unread()
    expect(whole).toEqual(['extensions of database closed: the role has no CONNECT there'])
    const { source } = await backUp(places, target)
    const contents = Object.fromEntries(
      source.configuration.map(({ path, content }) => [
        path,
        content === null ? null : Buffer.from(content, 'base64').toString('utf8'),
      ]),
    )
    const expected = ['postgresql.conf', 'pg_hba.conf', 'pg_ident.conf', 'conf.d/more.conf']
    if (version >= 16) expected.push('more_hba.conf')
    for (const file of expected) expect(contents[join(etc, file)]).toBe(await readFile(join(etc, file), 'utf8'))
    expect(contents[join(server.dataDirectory, 'postgresql.auto.conf')]).toBeNull()
    expect(source.settings).toContainEqual({
      name: 'log_min_duration_statement',
      value: '12345',
      unit: 'ms',
      source: 'configuration file',
      file: join(etc, 'conf.d/more.conf'),
    })
    expect(source.role).toBe('tidemark')

    for (const grant of grants) {
      await server.query(grant.replace('GRANT', 'REVOKE').replace(' TO ', ' FROM '))
      expect((await unread()).length, `without: ${grant}`).toBeGreaterThan(whole.length)
      await server.query(grant)
    }
    expect(await unread()).toEqual(whole)
  },
)

async function backUp({ set, keys }: Awaited<ReturnType<typeof newTestSet>>, target: ConnectionTarget) {
  const { record } = await takeBaseBackup(
    {
      cluster: 'main',
      target,
      operationId: `rights ${Math.random()}`,
      requestedAt: new Date(),
      checkpoint: 'fast',
      maxRateKiB: undefined,
      label: undefined,
      sealing,
    },
    {
      set,
      keys,
      clock: systemClock,
      logger: silentLogger,
      signal: noDeadline,
      progress: () => {},
      writerVersion: 'test',
    },
  )
  const [repository] = set.repositories
  if (repository === undefined) throw new Error('no repository')
  const table = await readPackTable(repository, record, noDeadline)
  return { record, source: await readSource(repository, record, table, (id) => keys.keyring.dataKey(id), noDeadline) }
}
