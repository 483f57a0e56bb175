import { chown, readFile, readdir, stat } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { postgresBin } from './postgres-binaries.ts'
import { TestPostgres } from './postgres.ts'
import { runTool } from './run-tool.ts'
import { TemporaryFolder } from './temporary-folder.ts'
import { unprivilegedUser, type OsUser } from './unprivileged-user.ts'

export interface AdoptPostgresOptions {
  readonly dataDirectory: string
  /** Given to the server as `-c` options; nothing is written into the directory's configuration. */
  readonly settings?: Readonly<Record<string, string>>
  readonly user?: string
  readonly password?: string
  readonly database?: string
  readonly binDirectory?: string
  /** Recovery may take long before the first connection is answered. Default 120 s. */
  readonly startTimeoutMs?: number
}

/**
 * Starts a server on a data directory that is already there, such as a restored one.
 *
 * Connects over TCP where the server listens, over its Unix socket otherwise (`listen_addresses` empty).
 * Run as root, the server becomes the directory's owner, or `postgres` after taking over a directory
 * that root owns. The directory stays after disposal; only the server goes.
 */
export async function adoptPostgres(options: AdoptPostgresOptions): Promise<TestPostgres> {
  const { settings = {} } = options
  const dataDirectory = resolve(options.dataDirectory)
  const binDirectory = options.binDirectory ?? (await binariesFor(dataDirectory))
  const osUser = await ownerFor(dataDirectory)
  const folder = await TemporaryFolder.create('adopted')
  try {
    const effective = async (name: string): Promise<string> => {
      const given = Object.entries(settings).flatMap(([key, value]) => ['-c', `${key}=${value}`])
      const args = ['-D', dataDirectory, ...given, '-C', name]
      const { stdout } = await runTool(join(binDirectory, 'postgres'), args, { as: osUser, cwd: dataDirectory })
      return stdout.trim()
    }
    const [listen, port, sockets] = await Promise.all([
      effective('listen_addresses'),
      effective('port'),
      effective('unix_socket_directories'),
    ])
    const firstSocket = sockets.split(',')[0]?.trim().replaceAll('"', '') ?? ''
    const socketDirectory = firstSocket === '' ? undefined : resolve(dataDirectory, firstSocket)
    const address = listen.split(',')[0]?.trim() ?? ''
    const host = address === '' ? socketDirectory : address === '*' || address === '0.0.0.0' ? '127.0.0.1' : address
    if (host === undefined) throw new Error(`${dataDirectory}: the server would listen neither on TCP nor on a socket`)
    const server = new TestPostgres({
      host,
      port: Number(port),
      user: options.user ?? 'postgres',
      password: options.password ?? '',
      database: options.database ?? 'postgres',
      dataDirectory,
      binDirectory,
      socketDirectory,
      osUser,
      logFile: folder.join('postgres.log'),
      settings,
      startTimeoutMs: options.startTimeoutMs ?? 120_000,
      owns: folder,
    })
    await server.start()
    return server
  } catch (error) {
    await folder[Symbol.asyncDispose]()
    throw error
  }
}

/** A data directory says which major version it is of. */
async function binariesFor(dataDirectory: string): Promise<string> {
  return await postgresBin(Number((await readFile(join(dataDirectory, 'PG_VERSION'), 'utf8')).trim()))
}

async function ownerFor(dataDirectory: string): Promise<OsUser | undefined> {
  if (process.getuid?.() !== 0) return undefined
  const { uid, gid } = await stat(dataDirectory)
  if (uid !== 0) return { uid, gid }
  const user = unprivilegedUser()
  if (user === undefined) return undefined
  for (const entry of await readdir(dataDirectory, { recursive: true })) {
    await chown(join(dataDirectory, entry), user.uid, user.gid)
  }
  await chown(dataDirectory, user.uid, user.gid)
  return user
}
