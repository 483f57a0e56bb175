import { randomBytes } from 'node:crypto'
import { appendFile, chown, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { freePort } from './free-port.ts'
import { postgresBin } from './postgres-binaries.ts'
import { TestPostgres } from './postgres.ts'
import { runTool } from './run-tool.ts'
import { TemporaryFolder } from './temporary-folder.ts'
import { unprivilegedUser } from './unprivileged-user.ts'

export interface StartPostgresOptions {
  /** Lines of postgresql.conf, over the defaults. Values are quoted here. */
  readonly settings?: Readonly<Record<string, string>>
  /** After our own, which they override: --encoding, --locale-provider, --waldir, … */
  readonly initdbArgs?: readonly string[]
  /** Shows in the temporary folder's name. */
  readonly name?: string
  /** Major version, 15 to 18; default: the first of env TIDEMARK_TEST_PG, else 15. */
  readonly version?: number | undefined
  /** Other server binaries than `postgresBin()`'s. */
  readonly binDirectory?: string
  /** Page checksums; default on. */
  readonly checksums?: boolean
}

/**
 * A fresh cluster with page checksums, scram passwords, replication allowed on loopback, fsync on.
 *
 * Its settings stand in postgresql.conf, as on a real server, so that a backup carries them.
 */
export async function startPostgres(options: StartPostgresOptions = {}): Promise<TestPostgres> {
  const folder = await TemporaryFolder.create(options.name ?? 'pg')
  try {
    const binDirectory = options.binDirectory ?? (await postgresBin(options.version))
    const osUser = unprivilegedUser()
    const dataDirectory = await folder.serverFolder('data')
    const socketDirectory = await folder.serverFolder('socket')
    const password = randomBytes(12).toString('hex')
    const passwordFile = folder.join('password')
    await writeFile(passwordFile, `${password}\n`, { mode: 0o600 })
    if (osUser) await chown(passwordFile, osUser.uid, osUser.gid)

    await runTool(
      join(binDirectory, 'initdb'),
      [
        ['-D', dataDirectory, '-U', 'postgres', '--pwfile', passwordFile, '--no-sync'],
        (options.checksums ?? true) ? ['--data-checksums'] : await noChecksums(binDirectory),
        ['--auth-host=scram-sha-256', '--auth-local=scram-sha-256'],
        ['--encoding=UTF8', '--locale=C.UTF-8'],
        options.initdbArgs ?? [],
      ].flat(),
      { as: osUser, cwd: dataDirectory },
    )
    const port = await freePort()
    const settings = {
      listen_addresses: '127.0.0.1',
      port: String(port),
      unix_socket_directories: socketDirectory,
      wal_level: 'replica',
      max_wal_senders: '10',
      max_replication_slots: '10',
      fsync: 'on',
      log_line_prefix: '%m [%p] %q%a ',
      ...options.settings,
    }
    const lines = Object.entries(settings).map(([name, value]) => `${name} = '${value.replaceAll("'", "''")}'`)
    await appendFile(join(dataDirectory, 'postgresql.conf'), `\n${lines.join('\n')}\n`)
    await allowReplication(dataDirectory)

    const server = new TestPostgres({
      host: '127.0.0.1',
      port: Number(settings.port),
      user: 'postgres',
      password,
      database: 'postgres',
      dataDirectory,
      binDirectory,
      socketDirectory,
      osUser,
      logFile: folder.join('postgres.log'),
      settings: {},
      startTimeoutMs: 60_000,
      owns: folder,
    })
    await server.start()
    return server
  } catch (error) {
    await folder[Symbol.asyncDispose]()
    throw error
  }
}

/** They are off unless asked for up to 17, and on unless told otherwise from 18. */
async function noChecksums(binDirectory: string): Promise<string[]> {
  const { stdout } = await runTool(join(binDirectory, 'initdb'), ['--version'])
  return Number(/ (\d+)/.exec(stdout)?.[1]) >= 18 ? ['--no-data-checksums'] : []
}

/** initdb writes these lines already; packagers' templates may not. */
async function allowReplication(dataDirectory: string): Promise<void> {
  const path = join(dataDirectory, 'pg_hba.conf')
  const lines = (await readFile(path, 'utf8')).split('\n')
  if (lines.some((line) => /^host\s+replication\s+all\s+127\.0\.0\.1\/32\s+scram-sha-256/.test(line))) return
  await appendFile(path, 'host replication all 127.0.0.1/32 scram-sha-256\n')
}
