/**
 * scripts/rescue/tidemark_rescue.py opens what Tidemark wrote, and shares no code with it.
 *
 * It was written from docs/repository-format.md alone, so these tests prove that the page is enough.
 */
import { createHash, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { appendFile, readdir, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { KeyEncryptionKey, type SuiteName } from '@tidemark/crypto'
import { silentLogger, systemClock } from '@tidemark/kernel'
import { takeBaseBackup } from '@tidemark/operations'
import { initRepositorySet, openKeys } from '@tidemark/repository'
import {
  TemporaryFolder,
  type TestPostgres,
  adoptPostgres,
  random,
  seed,
  startPostgres,
  until,
} from '@tidemark/testkit'
import { expect, test } from 'vitest'
import { filePlace, noDeadline, sealing, targetOf } from '../support/repositories.ts'
import { fillSampleCluster, fingerprint } from '../support/sample-cluster.ts'
import { runProgram } from './run-program.ts'
import {
  DRAFT,
  EXIT,
  FIXTURE_KEY,
  READABLE,
  SCRIPT,
  expectedOf,
  giveAway,
  objectsOf,
  rescue,
  unpack,
} from './run-rescue.ts'

const VECTORS = new URL('../../packages/crypto/vectors/format-1.json', import.meta.url).pathname
const DRIVER = new URL('rescue_vectors.py', import.meta.url).pathname
const NO_INPUT = Buffer.alloc(0)
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

const isHistory = (name: string): boolean => name.endsWith('.history')

/** expected.json has one character per byte of a path. */
const contentAt = (directory: string, path: string): Buffer =>
  readFileSync(Buffer.concat([Buffer.from(`${directory}/`), Buffer.from(path, 'latin1')]))

test.each(READABLE)(
  'format %s: the rescue script lays out every file with its SHA-256, and its WAL',
  async (version) => {
    await using folder = await TemporaryFolder.create('rescue')
    const repository = await unpack(folder, version)
    const { backups } = expectedOf(version)
    const key = FIXTURE_KEY.toString('hex')
    const targets = await folder.serverFolder('targets')

    const listed = await rescue(repository, '', 'list')
    expect(listed.code).toBe(0)
    expect(listed.stdout.match(/^[0-9a-f]{16}/gm)).toEqual(backups.map(({ backupId }) => backupId))
    expect(listed.stderr).toContain('NOT proven')
    expect(await rescue(repository, key, 'keyring')).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('opens'),
    })

    for (const { backupId, files, wal, history } of backups) {
      expect(await rescue(repository, key, 'verify', backupId)).toMatchObject({ code: 0 })
      expect(await rescue(repository, key, '--zstd-command', 'verify', backupId)).toMatchObject({ code: 0 })
      const target = join(targets, backupId)
      // A fixture is a handful of files and no cluster: everything is laid out, and then that is said.
      const restored = await rescue(repository, key, 'restore', backupId, target)
      expect(restored).toMatchObject({
        code: EXIT.damaged,
        stderr: expect.stringContaining('global/pg_control is not in'),
      })
      for (const { type, path, size, sha256: digest } of files) {
        if (type !== 'file') continue
        const content = contentAt(target, path)
        expect({ path, size: content.length, digest: sha256(content) }).toEqual({ path, size, digest })
      }
      const segments = (await readdir(join(target, 'tidemark_rescue_wal'))).toSorted()
      const contents = segments.map((name) => ({
        name,
        digest: sha256(readFileSync(join(target, 'tidemark_rescue_wal', name))),
      }))
      expect(contents.filter(({ name }) => !isHistory(name)).map(({ digest }) => digest)).toEqual(wal)
      expect(contents.filter(({ name }) => isHistory(name)).map(({ digest }) => digest)).toEqual(history)
    }
  },
)

test('a repository of the draft format is refused by its version', async () => {
  await using folder = await TemporaryFolder.create('rescue')
  const { code, stderr } = await rescue(await unpack(folder, DRAFT), FIXTURE_KEY.toString('hex'), 'list')
  expect({ code, stderr }).toMatchObject({ code: EXIT.unknown, stderr: expect.stringContaining('format version 0') })
})

test('the rescue script gives every known answer of the format, and refuses each with any byte changed', async () => {
  const args = ['-B', DRIVER, join(SCRIPT, '..'), VECTORS]
  const { code, stdout, stderr } = await runProgram('python3', args, NO_INPUT)
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  const vectors = JSON.parse(readFileSync(VECTORS, 'utf8')) as {
    identities: unknown[]
    streams: { frames: unknown[] }[]
    keyedDigests: unknown[]
  }
  expect(JSON.parse(stdout.toString())).toMatchObject({
    identities: vectors.identities.length,
    frames: vectors.streams.flatMap(({ frames }) => frames).length,
    'keyed digests': vectors.keyedDigests.length,
  })
})

test('the key is taken as hex, as base64 and from a file; a wrong or missing one is named as the reason', async () => {
  await using folder = await TemporaryFolder.create('rescue')
  const version = READABLE.at(-1) as string
  const repository = await unpack(folder, version)
  const backup = expectedOf(version).backups[0]?.backupId as string
  const keyFile = folder.join('key')
  await writeFile(keyFile, `${FIXTURE_KEY.toString('base64')}\n`, { mode: 0o600 })
  giveAway(keyFile)
  expect((await rescue(repository, FIXTURE_KEY.toString('base64'), 'verify', backup)).code).toBe(0)
  expect((await rescue(repository, '', '--key-file', keyFile, 'verify', backup)).code).toBe(0)
  const refused: [string, RegExp][] = [
    ['', /needs the key/],
    ['00'.repeat(32), /the one given has id [0-9a-f]{16}; this repository opens with [0-9a-f]{16}/],
    ['abc', /neither 64 hex digits nor base64/],
  ]
  for (const [key, reason] of refused) {
    const { code, stderr } = await rescue(repository, key, 'verify', backup)
    expect(code).toBe(EXIT.key)
    expect(stderr).toMatch(reason)
  }
})

const runSeed = seed()

test.each(READABLE)(
  'format %s: an object that is changed, cut, lengthened, swapped or missing is refused',
  async (version) => {
    await using folder = await TemporaryFolder.create('rescue')
    const chance = random(runSeed)
    const key = FIXTURE_KEY.toString('hex')
    for (const { backupId } of expectedOf(version).backups) {
      const original = await unpack(folder, version, `original-${backupId}`)
      const record = (await objectsOf(original)).find(
        (path) => path.endsWith(`-${backupId}.json`) && path.includes('/records/'),
      )
      const table = readFileSync(join(record as string, '../../base', backupId, 'packs.jsonl'), 'utf8')
      const mine = (await objectsOf(original))
        .map((path) => path.slice(original.length + 1))
        .filter((name) => !name.includes('/begin/') && !name.includes('/records/') && !name.startsWith('tidemark.json'))
        .filter(
          (name) =>
            name.includes(backupId) || name.startsWith('keys/') || table.includes(name.split('/').slice(3).join('/')),
        )
      mine.push((record as string).slice(original.length + 1))
      expect(mine.length).toBeGreaterThanOrEqual(8)
      for (const name of mine) {
        const path = join(original, name)
        const good = readFileSync(path)
        const at = chance.integer(0, good.length - 1)
        const changed = Buffer.from(good)
        changed.writeUInt8((changed[at] as number) ^ (1 << chance.integer(0, 7)), at)
        const faults: [string, () => Promise<void>][] = [
          [`bit flip at ${at}`, () => writeFile(path, changed)],
          ['cut short by one byte', () => truncate(path, good.length - 1)],
          ['one byte more', () => appendFile(path, Buffer.from([10]))],
          ['missing', () => rm(path)],
        ]
        const other = mine.find((candidate) => candidate !== name && sameKind(candidate, name))
        if (other !== undefined)
          faults.push([`bytes of ${other}`, () => writeFile(path, readFileSync(join(original, other)))])
        const [what, harm] = chance.pick(faults)
        await harm()
        const { code, stderr } = await rescue(original, key, 'verify', backupId)
        expect({
          name,
          what,
          refused: [EXIT.key, EXIT.unknown, EXIT.damaged].includes(code ?? 0),
          stderr,
        }).toMatchObject({ refused: true })
        expect(stderr).toContain('REFUSED: ')
        expect(stderr).not.toContain('Traceback')
        await writeFile(path, good)
      }
      expect((await rescue(original, key, 'verify', backupId)).code).toBe(0)
    }
  },
)

const sameKind = (a: string, b: string): boolean =>
  ['/pack-', '/wal/'].some((part) => a.includes(part) && b.includes(part)) && !`${a}${b}`.includes('.history')

interface RealBackup {
  readonly repository: string
  readonly key: string
  readonly backupId: string
}

/** `whileCopying` runs once data flows, and delays the backup's end by as long as it takes. */
async function backUp(
  source: TestPostgres,
  repository: string,
  suite: SuiteName,
  whileCopying?: () => Promise<void>,
): Promise<RealBackup> {
  const bytes = randomBytes(32)
  const kek = new KeyEncryptionKey(bytes)
  const environment = { clock: systemClock, logger: silentLogger, signal: noDeadline }
  const { set } = await initRepositorySet([await filePlace('local', repository)], [kek], undefined, environment)
  let copying = false
  const request = {
    cluster: 'main',
    target: targetOf(source),
    operationId: 'rescue',
    requestedAt: new Date(),
    checkpoint: 'fast',
    maxRateKiB: whileCopying ? 16_384 : undefined,
    label: undefined,
    sealing: { ...sealing, suite },
  } as const
  const running = takeBaseBackup(request, {
    ...environment,
    set,
    keys: await openKeys(set, [kek], noDeadline),
    writerVersion: 'test',
    progress: ({ phase, bytesDone }) => {
      copying ||= phase === 'copy' && bytesDone > 0
    },
  })
  if (whileCopying) {
    await until(() => copying, { what: 'the copy to begin' })
    await whileCopying()
  }
  const { record } = await running
  giveAway(repository)
  return { repository, key: bytes.toString('hex'), backupId: record.backupId }
}

test('a cluster with a tablespace, rescued by the script, starts isolated on a new timeline and equals its source', async () => {
  await using folder = await TemporaryFolder.create('rescue')
  await using source = await startPostgres({
    settings: { archive_mode: 'on', archive_command: 'exit 1', max_connections: '123' },
  })
  await fillSampleCluster(source, 1)
  const location = await folder.serverFolder('space')
  await source.query(`CREATE TABLESPACE side LOCATION '${location}'`)
  await source.query('CREATE TABLE aside TABLESPACE side AS SELECT n, md5(n::text) FROM generate_series(1, 5000) n')
  await source.query('CHECKPOINT')
  const [space] = await source.query<{ oid: string }>("SELECT oid::text FROM pg_tablespace WHERE spcname = 'side'")
  const oid = space?.oid as string
  const before = await fingerprint(source)
  const { repository, key, backupId } = await backUp(source, folder.join('repository'), 'aes-256-cbc-hmac-sha-256')
  // What happens to the source afterwards must not reach the copies, nor theirs the source.
  await source.query('DROP TABLE articles')

  const configuration = await rescue(repository, key, 'configuration', backupId)
  expect(configuration).toMatchObject({ code: 0, stdout: expect.stringContaining(location) })
  expect(await rescue(repository, key, 'verify', backupId)).toMatchObject({ code: 0 })

  const targets = await folder.serverFolder('targets')
  const moved = join(targets, 'moved-space')
  const ways = [
    { name: 'below', flags: [], holds: (target: string) => join(target, 'tidemark_rescue_tablespaces', oid) },
    { name: 'mapped', flags: ['--tablespace', `${oid}=${moved}`], holds: () => moved },
  ]
  for (const { name, flags, holds } of ways) {
    const target = join(targets, name)
    const { code, stderr } = await rescue(repository, key, 'restore', backupId, target, ...flags)
    expect({ code, stderr }).toMatchObject({
      code: 0,
      stderr: expect.stringContaining(`tablespace ${oid}, on the source in ${location}, is in ${holds(target)}`),
    })
    expect((await readdir(holds(target))).join()).toMatch(/^PG_\d+_/)
    expect((await stat(target)).mode & 0o777).toBe(0o700)
    const again = await rescue(repository, key, 'restore', backupId, target)
    expect(again).toMatchObject({ code: EXIT.target, stderr: expect.stringContaining('not empty') })

    // PostgreSQL's own tool, with the checksums that the server took while it sent the files.
    const ours = ['postgresql.conf', 'pg_hba.conf', 'pg_ident.conf', 'tablespace_map']
    const ignored = [
      ...ours.flatMap((file) => [file, `${file}.source`]),
      'postgresql.auto.conf.source',
      'tidemark_rescue_wal',
      'tidemark_rescue_tablespaces',
    ]
    const args = ['--no-parse-wal', ...ignored.flatMap((file) => ['--ignore', file]), target]
    const manifest = await runProgram(join(source.binDirectory, 'pg_verifybackup'), args, NO_INPUT)
    expect(manifest).toMatchObject({ code: 0, stderr: '' })

    await using restored = await adoptPostgres({ dataDirectory: target })
    expect(await fingerprint(restored)).toEqual(before)
    const [state] = await restored.query(
      `SELECT timeline_id AS timeline, current_setting('archive_mode') AS archive, current_setting('listen_addresses') AS listen,
              current_setting('max_connections') AS connections, pg_is_in_recovery() AS recovering FROM pg_control_checkpoint()`,
    )
    expect(state).toEqual({ timeline: 2, archive: 'off', listen: '', connections: '123', recovering: false })
    await restored.query('INSERT INTO aside VALUES (0, NULL)')
  }
  const [left] = await source.query<{ rows: string }>('SELECT count(*)::text AS rows FROM aside')
  expect(left?.rows).toBe('5000')
})

test('a backup that a CREATE TABLESPACE fell into is not laid out where its replay would adopt a live directory', async () => {
  await using folder = await TemporaryFolder.create('rescue')
  await using source = await startPostgres()
  await fillSampleCluster(source, 1)
  const location = await folder.serverFolder('late')
  const { repository, key, backupId } = await backUp(source, folder.join('repository'), 'aes-256-gcm', async () => {
    await source.query(`CREATE TABLESPACE late LOCATION '${location}'`)
  })
  expect(await rescue(repository, key, 'verify', backupId)).toMatchObject({ code: 0 })
  const target = join(await folder.serverFolder('targets'), 'target')
  const refused = await rescue(repository, key, 'restore', backupId, target)
  expect(refused).toMatchObject({
    code: EXIT.target,
    stderr: expect.stringContaining('was created while this backup ran'),
  })
  await expect(stat(target)).rejects.toMatchObject({ code: 'ENOENT' })
})
