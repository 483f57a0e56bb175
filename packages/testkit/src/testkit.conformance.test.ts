import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { GetObjectCommand, PutObjectCommand } from '@aws-sdk/client-s3'
import { expect, test } from 'vitest'
import {
  TemporaryFolder,
  adoptPostgres,
  random,
  sharedS3,
  startPostgres,
  startRedis,
  testedPostgresVersions,
  until,
} from './index.ts'
import { isRunning } from './reaper.ts'

test('PostgreSQL starts with checksums, answers, and is gone afterwards', async () => {
  let pid: number
  let folder: string
  {
    await using pg = await startPostgres({ settings: { 'tidemark.note': "it's" } })
    pid = pg.pid ?? 0
    folder = pg.dataDirectory
    expect(await pg.query('SHOW data_checksums')).toEqual([{ data_checksums: 'on' }])
    expect(await pg.query("SELECT current_setting('tidemark.note') AS note")).toEqual([{ note: "it's" }])
    expect((await pg.run('psql', ['-Atc', 'SELECT 40 + 2'])).stdout).toBe('42\n')
    await expect(pg.run('psql', ['-v', 'ON_ERROR_STOP=1', '-c', 'SELECT nonsense'])).rejects.toThrow(/nonsense/)
    expect((await pg.run('psql', ['-At', pg.url], { input: 'SELECT 7' })).stdout).toBe('7\n')
    expect(isRunning(pid)).toBe(true)
  }
  expect(isRunning(pid)).toBe(false)
  expect(existsSync(folder)).toBe(false)
})

test.each(testedPostgresVersions())(
  'PostgreSQL %i starts, is adopted again, and has the extensions that comparisons need',
  async (version) => {
    await using folder = await TemporaryFolder.create()
    const copy = folder.join('copy')
    let password: string
    {
      await using pg = await startPostgres({ version, checksums: false })
      password = pg.password

      const [row] = await pg.query<{ version: number; checksums: string }>(
        "SELECT current_setting('server_version_num')::int / 10000 AS version, current_setting('data_checksums') AS checksums",
      )
      expect(row).toEqual({ version, checksums: 'off' })
      await pg.query('CREATE EXTENSION amcheck; CREATE EXTENSION pgcrypto; CREATE EXTENSION pg_walinspect')
      await pg.stop()
      execFileSync('cp', ['-a', pg.dataDirectory, copy])
    }
    await using again = await adoptPostgres({
      dataDirectory: copy,
      password,
      settings: { unix_socket_directories: copy },
    })
    expect(await again.query("SELECT bt_index_check('pg_class_oid_index')::text")).toHaveLength(1)
  },
)

test('a killed server takes its children along and recovers what was committed', async () => {
  await using pg = await startPostgres()
  await pg.query('CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n')
  const client = await pg.client()
  await pg.killHard()
  expect(pg.running).toBe(false)
  await pg.start()
  expect(await pg.query('SELECT count(*)::int AS n FROM kept')).toEqual([{ n: 1000 }])
  await client.end().catch(() => {})
  await pg.stop('smart')
  expect(pg.log()).toContain('database system was not properly shut down')
})

test('a server that cannot start throws with its log', async () => {
  await expect(startPostgres({ settings: { shared_buffers: 'much' } })).rejects.toThrow(/shared_buffers/)
})

test('a copied data directory is adopted over its socket without a change to its configuration', async () => {
  await using folder = await TemporaryFolder.create()
  const copy = folder.join('copy')
  {
    await using pg = await startPostgres()
    await pg.query('CREATE TABLE kept AS SELECT 1 AS n')
    await pg.stop()
    execFileSync('cp', ['-a', pg.dataDirectory, copy])
  }
  execFileSync('sh', ['-c', `echo 'local all all trust' > ${join(copy, 'pg_hba.conf')}`])
  const before = readFileSync(join(copy, 'postgresql.conf'), 'utf8')
  await using clone = await adoptPostgres({
    dataDirectory: copy,
    settings: { listen_addresses: '', unix_socket_directories: copy },
  })
  expect(clone.host).toBe(copy)
  expect(await clone.query('SELECT n FROM kept')).toEqual([{ n: 1 }])
  expect((await clone.run('psql', ['-Atc', 'SELECT n FROM kept'])).stdout).toBe('1\n')
  expect(readFileSync(join(copy, 'postgresql.conf'), 'utf8')).toBe(before)
})

test('Redis keeps its contents over a restart', async () => {
  await using redis = await startRedis()
  const cli = (...args: string[]): string =>
    execFileSync('redis-cli', ['-p', String(redis.port), ...args], { encoding: 'utf8' }).trim()
  cli('SET', 'kept', 'yes')
  await redis.restart()
  expect(cli('GET', 'kept')).toBe('yes')
  expect(cli('CONFIG', 'GET', 'maxmemory-policy')).toContain('noeviction')
  await redis.killHard()
  expect(redis.running).toBe(false)
})

test('S3 stores over http and answers over https', async () => {
  await using s3 = await sharedS3()
  const Bucket = await s3.createBucket()
  const bytes = random(1).bytes(1000)
  await s3.client().send(new PutObjectCommand({ Bucket, Key: 'a', Body: bytes }))
  const client = s3.client({ https: s3.httpsEndpoint !== undefined })
  const answer = await client.send(new GetObjectCommand({ Bucket, Key: 'a' }))
  expect(Buffer.from((await answer.Body?.transformToByteArray()) ?? [])).toEqual(bytes)
})

test('a process that is SIGKILLed leaves no server and no folder behind', async () => {
  const script = `
    import { startRedis, TemporaryFolder } from ${JSON.stringify(join(import.meta.dirname, 'index.ts'))}
    const folder = await TemporaryFolder.create('orphan')
    const redis = await startRedis()
    console.log(JSON.stringify({ folder: folder.path, port: redis.port }))
    process.kill(process.pid, 'SIGKILL')`
  let output = ''
  try {
    execFileSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' })
  } catch (error) {
    output = (error as { stdout: string }).stdout
  }
  const { folder, port } = JSON.parse(output) as { folder: string; port: number }
  await until(() => !existsSync(folder), { what: 'the folder to be removed' })
  expect(() => execFileSync('redis-cli', ['-p', String(port), 'PING'], { stdio: 'pipe' })).toThrow(/redis-cli/)
})
