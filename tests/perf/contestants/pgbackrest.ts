import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { bytesBelow } from '../meter.ts'
import type { Arena, Contestant } from './contestant.ts'

const run = promisify(execFile)

/**
 * pgBackRest at its tuned settings: files bundled, zst, aes-256-cbc, one process a core. It reads the data directory itself,
 * on the server's own host, where ours goes through the replication protocol. The base backup alone is compared: it archives no WAL.
 *
 * @returns undefined where it is not installed.
 */
export async function openPgBackRest(
  arena: Arena,
  variant: { readonly level: number; readonly store: 'directory' | 's3' },
): Promise<Contestant | undefined> {
  const version = await run('pgbackrest', ['version']).then(
    ({ stdout }) => stdout.trim(),
    () => undefined,
  )
  if (version === undefined) return undefined
  const { server, s3, cores } = arena
  const { level, store } = variant
  if (store === 's3' && s3.httpsEndpoint === undefined) return undefined // it speaks S3 over TLS only
  const folder = join(arena.folder, `pgbackrest-${store}-${level}`)
  const repository = store === 's3' ? `/pgbackrest-${level}` : join(folder, 'repository')
  await mkdir(join(folder, 'repository'), { recursive: true })
  const config = join(folder, 'pgbackrest.conf')
  const bucket = store === 's3' ? await s3.createBucket() : ''
  const settings: Record<string, string> = {
    'repo1-path': repository,
    'repo1-cipher-type': 'aes-256-cbc',
    'repo1-cipher-pass': randomBytes(32).toString('base64'),
    'repo1-bundle': 'y',
    'repo1-retention-full': '2',
    ...(store === 's3' ? s3Settings(arena, bucket) : {}),
    'compress-type': 'zst',
    'compress-level': String(level),
    'process-max': String(cores),
    'start-fast': 'y',
    'archive-check': 'n',
    'log-level-console': 'warn',
    'log-level-file': 'off',
    'lock-path': join(folder, 'lock'),
    'spool-path': join(folder, 'spool'),
  }
  const cluster = {
    'pg1-path': server.dataDirectory,
    'pg1-port': String(server.port),
    'pg1-socket-path': server.socketDirectory,
    'pg1-user': server.user,
  }
  await writeFile(config, `[global]\n${iniOf(settings)}\n[bench]\n${iniOf(cluster)}`, { mode: 0o600 })
  const env = { ...process.env, PGPASSWORD: server.password }
  const tool = (...args: string[]): readonly [string, ...string[]] => [
    'pgbackrest',
    `--config=${config}`,
    '--stanza=bench',
    ...args,
  ]
  return {
    name: `pgBackRest, zst ${level}${store === 's3' ? ', S3' : ''}`,
    about: `${version}; bundle, zst ${level}, aes-256-cbc, process-max ${cores}, start-fast, without archiving WAL`,
    env,
    reset: async () => {
      const [program, ...args] = tool('stanza-create')
      if (store === 'directory') await rm(repository, { recursive: true, force: true })
      await run(program, args, { env })
    },
    backup: tool('--type=full', 'backup'),
    storedBytes: async () => {
      const [program, ...args] = tool('--output=json', 'info')
      const { stdout } = await run(program, args, { env })
      const [stanza] = JSON.parse(stdout) as [{ backup: { info: { repository: { delta: number } } }[] }]
      return store === 'directory'
        ? bytesBelow(repository)
        : (stanza.backup.at(-1)?.info.repository.delta ?? Number.NaN)
    },
    restore: (target) => tool(`--pg1-path=${target}`, 'restore'),
  }
}

function s3Settings({ s3 }: Arena, bucket: string): Record<string, string> {
  const { hostname, port } = new URL(s3.httpsEndpoint ?? '')
  return {
    'repo1-type': 's3',
    'repo1-s3-bucket': bucket,
    'repo1-s3-endpoint': hostname,
    'repo1-storage-port': port,
    'repo1-s3-region': s3.region,
    'repo1-s3-key': s3.accessKeyId,
    'repo1-s3-key-secret': s3.secretAccessKey,
    'repo1-s3-uri-style': 'path',
    'repo1-storage-verify-tls': 'n',
  }
}

function iniOf(settings: Readonly<Record<string, string | undefined>>): string {
  return Object.entries(settings)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name}=${value}\n`)
    .join('')
}
