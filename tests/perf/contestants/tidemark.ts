import { execFile } from 'node:child_process'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { Command } from '../meter.ts'
import type { Arena, Contestant } from './contestant.ts'

const run = promisify(execFile)
/** The shipping form, which `npm run bench` builds first. */
const CLI = join(dirname(dirname(dirname(dirname(fileURLToPath(import.meta.url))))), 'dist/tidemark.js')

export interface TidemarkVariant {
  readonly name: string
  readonly level: number
  /** 'local', 's3' or both at once; the first is what is restored from. */
  readonly repositories: readonly ('local' | 's3')[]
}

/** One configuration with a directory and a bucket; variants choose among them on the command line. */
export async function openTidemark(arena: Arena): Promise<(variant: TidemarkVariant) => Contestant> {
  const { server, s3 } = arena
  const repository = join(arena.folder, 'tidemark')
  await mkdir(repository)
  const config = join(arena.folder, 'tidemark.yaml')
  const node = { host: server.host, port: server.port }
  const settings = {
    clusters: { bench: { nodes: [node], user: server.user, password: { env: 'BENCH_PG_PASSWORD' } } },
    repositories: {
      local: { url: `file://${repository}`, shared: true },
      s3: {
        url: `s3://${await s3.createBucket()}/bench`,
        endpoint: s3.httpsEndpoint ?? s3.endpoint,
        ...(s3.caFile === undefined ? {} : { caFile: s3.caFile }),
        accessKeyId: { env: 'BENCH_S3_KEY' },
        secretAccessKey: { env: 'BENCH_S3_SECRET' },
      },
    },
  }
  await writeFile(config, JSON.stringify(settings))
  const { stdout: key } = await run(process.execPath, [CLI, 'key', 'generate'])
  const env = {
    ...process.env,
    TIDEMARK_CONFIG: config,
    BACKUP_ENCRYPTION_KEY: key.trim(),
    BENCH_PG_PASSWORD: server.password,
    BENCH_S3_KEY: s3.accessKeyId,
    BENCH_S3_SECRET: s3.secretAccessKey,
  }
  await run(process.execPath, [CLI, 'repo', 'init'], { env })

  return ({ name, level, repositories }) => {
    const [readFrom = 'local'] = repositories
    return {
      name,
      about: `zstd ${level}, AES-256-CBC + HMAC-SHA-256, with the WAL of its duration`,
      env,
      reset: () => rm(join(repository, 'clusters'), { recursive: true, force: true }),
      backup: tidemark('backup', 'base', 'bench', '--local', '--level', String(level), '--repository', ...repositories),
      storedBytes: async () => {
        const answer = await run(process.execPath, [CLI, '--json', 'backups', 'list', '--repository', readFrom], {
          env,
        })
        return storedBytesOf(answer.stdout)
      },
      restore: (target) => {
        const what = ['restore', 'run', 'latest', '--cluster', 'bench', '--target', target]
        return tidemark(...what, '--local', '--repository', readFrom)
      },
    }
  }
}

function storedBytesOf(json: string): number {
  const { backups } = JSON.parse(json) as { backups: readonly Listed[] }
  return backups.toSorted((a, b) => a.stoppedAt.localeCompare(b.stoppedAt)).at(-1)?.totals.storedBytes ?? Number.NaN
}

function tidemark(...args: string[]): Command {
  return [process.execPath, CLI, '--json', ...args]
}

interface Listed {
  readonly stoppedAt: string
  readonly totals: { readonly storedBytes: number }
}
