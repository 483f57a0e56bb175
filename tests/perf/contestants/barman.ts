import { execFile, spawn } from 'node:child_process'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { bytesBelow } from '../meter.ts'
import { type TestPostgres, until } from '@tidemark/testkit'
import type { Arena, Contestant } from './contestant.ts'

const run = promisify(execFile)

export interface Barman extends AsyncDisposable {
  readonly contestant: Contestant | undefined
  /** Why there is none. */
  readonly reason: string
}

/** Barman by its postgres method: pg_basebackup in its hands, with a WAL receiver beside it, compressed in the client. Not encrypted. */
export async function openBarman(arena: Arena): Promise<Barman> {
  const { server } = arena
  const version = await run('barman', ['--version']).then(
    ({ stdout }) => stdout.split('\n', 1)[0] ?? '',
    () => undefined,
  )
  if (version === undefined) return none('not installed')
  const home = join(arena.folder, 'barman')
  await mkdir(join(home, 'conf.d'), { recursive: true })
  const config = join(home, 'barman.conf')
  const login = `host=${server.host} port=${server.port} user=${server.user} password=${server.password}`
  await writeFile(
    config,
    `[barman]
barman_user = root
barman_home = ${home}
barman_lock_directory = ${home}
configuration_files_directory = ${home}/conf.d
log_file = ${home}/barman.log
[bench]
description = bench
conninfo = ${login} dbname=postgres
streaming_conninfo = ${login}
backup_method = postgres
streaming_archiver = on
slot_name = barman
create_slot = auto
immediate_checkpoint = true
path_prefix = ${server.binDirectory}
backup_compression = zstd
backup_compression_level = 1
backup_compression_location = client
`,
    { mode: 0o600 },
  )
  const env = { ...process.env, PGPASSWORD: server.password, LC_ALL: 'C.UTF-8' }
  const tool = (...args: string[]): readonly [string, ...string[]] => ['barman', '-c', config, ...args]
  const barman = async (...args: string[]): Promise<void> => {
    const [program, ...rest] = tool(...args)
    await run(program, rest, { env })
  }
  await barman('receive-wal', '--create-slot', 'bench')
  const receiver = spawn('barman', ['-c', config, 'receive-wal', 'bench'], { env, stdio: 'ignore' })
  const ended = new Promise((resolve) => receiver.once('exit', resolve))
  const end = async (): Promise<void> => {
    if (receiver.exitCode === null) {
      // Killed, it would leave its pg_receivewal behind.
      await barman('receive-wal', '--stop', 'bench')
      await ended
    }
    await server.query(
      "SELECT pg_drop_replication_slot('barman') FROM pg_replication_slots WHERE slot_name = 'barman' AND NOT active",
    )
  }
  try {
    // A slot that nobody has used yet keeps no WAL: what is switched before the receiver runs never comes.
    await until(async () => receiver.exitCode !== null || (await slotActive(server)), { what: 'the WAL receiver' })
    // Its own checks ask that one segment has been archived.
    await barman('switch-wal', '--force', '--archive', '--archive-timeout', '60', 'bench')
  } catch (error) {
    await end()
    return none(`it does not start here: ${error instanceof Error ? error.message : String(error)}`)
  }
  const contestant: Contestant = {
    name: 'Barman',
    about: `${version}; postgres method, zstd 1 in the client, not encrypted, WAL received beside it`,
    env,
    reset: async () => {
      await rm(join(home, 'bench', 'base'), { recursive: true, force: true })
      await mkdir(join(home, 'bench', 'base'))
    },
    backup: tool('backup', 'bench'),
    storedBytes: () => bytesBelow(join(home, 'bench', 'base')),
    restore: (target) => tool('recover', '--recovery-staging-path', home, 'bench', 'latest', target),
  }
  return { contestant, reason: '', [Symbol.asyncDispose]: end }
}

function none(reason: string): Barman {
  return { contestant: undefined, reason, [Symbol.asyncDispose]: async () => {} }
}

async function slotActive(server: TestPostgres): Promise<boolean> {
  const [slot] = await server.query<{ active: boolean }>(
    "SELECT active FROM pg_replication_slots WHERE slot_name = 'barman'",
  )
  return slot?.active === true
}
