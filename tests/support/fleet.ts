/**
 * Tidemark as an operator runs it: a tidemark.yaml, a key in the environment, the API and workers as processes, the command line.
 *
 * Every process has a TMPDIR of its own kind, `temporary`, so that a test can see what is left there.
 */
import { randomBytes } from 'node:crypto'
import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { type Config, loadConfig } from '@tidemark/config'
import { type BackupResult, type Operation, type VerifyResult, isTerminal, operationSchema } from '@tidemark/contracts'
import {
  type OsUser,
  type S3Settings,
  TemporaryFolder,
  type TestPostgres,
  type TestRedis,
  type TestS3,
  freePort,
  until,
} from '@tidemark/testkit'
import { type Ending, Program } from './processes.ts'

export type AppName = 'api' | 'worker-backup' | 'worker-verify' | 'worker-restore' | 'worker-maintenance'

/** What a worker needs to reach a server: the server itself, or a proxy before it. */
export type ServerAddress = Pick<TestPostgres, 'host' | 'port' | 'user' | 'password'>

export interface FleetOptions {
  /** By configured name. */
  readonly clusters: Readonly<Record<string, ServerAddress>>
  /** As they stand in tidemark.yaml; `{ folder: 'name' }` is a shared file repository in the fleet's own folder. */
  readonly repositories: Readonly<Record<string, RepositoryChoice>>
  readonly redis?: TestRedis
  readonly env?: Readonly<Record<string, string>>
  readonly packBytes?: string
}

export type RepositoryChoice =
  | { readonly folder: string; readonly required?: boolean }
  | Readonly<Record<string, unknown>>

export interface CliResult extends Ending {
  readonly stdout: string
  readonly stderr: string
  /** Of the `CODE:` line. */
  readonly problem: string | undefined
}

export interface CliOptions {
  readonly env?: Readonly<Record<string, string>>
  readonly input?: string | Uint8Array
  readonly cwd?: string
  readonly as?: OsUser | undefined
}

export interface ListedBackup {
  readonly backupId: string
  readonly operationId: string
  readonly cluster: string
  readonly systemId: string
  readonly verdict: 'intact' | 'damaged'
  readonly repositories: readonly string[]
  readonly untrusted: readonly string[]
  readonly missing: readonly string[]
}

export class Fleet implements AsyncDisposable {
  readonly folder: TemporaryFolder
  readonly configPath: string
  readonly apiPort: number
  /** Of every process started from here. */
  readonly env: Record<string, string>
  readonly #apps = new Set<Program>()
  readonly #document: { [section: string]: object }

  private constructor(
    folder: TemporaryFolder,
    apiPort: number,
    env: Record<string, string>,
    document: { [section: string]: object },
  ) {
    this.folder = folder
    this.configPath = folder.join('tidemark.yaml')
    this.apiPort = apiPort
    this.env = env
    this.#document = document
  }

  static async create(options: FleetOptions): Promise<Fleet> {
    const folder = await TemporaryFolder.create('fleet')
    await mkdir(folder.join('temporary'), { mode: 0o1777 })
    const apiPort = await freePort()
    const env: Record<string, string> = {
      BACKUP_ENCRYPTION_KEY: randomBytes(32).toString('hex'),
      TIDEMARK_CONFIG: folder.join('tidemark.yaml'),
      TMPDIR: folder.join('temporary'),
      ...options.env,
    }
    const clusters: Record<string, object> = {}
    for (const [name, { host, port, user, password }] of Object.entries(options.clusters)) {
      const variable = `PASSWORD_OF_${name.toUpperCase().replaceAll('-', '_')}`
      env[variable] = password
      clusters[name] = { nodes: [{ host, port }], user, password: { env: variable } }
    }
    const repositories = Object.fromEntries(
      Object.entries(options.repositories).map(([name, choice]) => {
        if (!('folder' in choice) || typeof choice.folder !== 'string') return [name, choice]
        const { folder: directory, ...rest } = choice
        return [name, { url: `file://${folder.join(directory)}`, shared: true, ...rest }]
      }),
    )
    const anyPort = { healthPort: 0 }
    const document = {
      clusters,
      repositories,
      backup: { packBytes: options.packBytes ?? '4MiB' },
      ...(options.redis === undefined ? {} : { redis: { url: options.redis.url } }),
      api: { port: apiPort, ...anyPort },
      workers: { backup: anyPort, verify: anyPort, restore: anyPort, maintenance: anyPort },
    }
    const fleet = new Fleet(folder, apiPort, env, document)
    await fleet.configure({})
    return fleet
  }

  /** Writes tidemark.yaml with these sections in place of its own. JSON is YAML. */
  async configure(sections: { readonly [section: string]: object }): Promise<void> {
    await writeFile(this.configPath, JSON.stringify({ ...this.#document, ...sections }, undefined, 2))
  }

  /** The configuration as a worker of this fleet sees it. */
  get config(): Config {
    return loadConfig({ path: this.configPath, env: this.env })
  }

  /** Starts an app; resolves once it takes work. */
  async start(name: AppName): Promise<Program> {
    const app = new Program(`apps/${name}/src/main.ts`, [], { env: this.env, cwd: this.folder.path })
    this.#apps.add(app)
    const { url, healthUrl } = await app.readyLine()
    const health = String(name === 'api' ? url : healthUrl)
    await until(async () => (await fetch(`${health}/readyz`)).ok, { what: `${name} to be ready` })
    return app
  }

  /** Runs the command line to its end. */
  async cli(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
    await using command = this.beginCli(args, options)
    const ending = await command.ended
    const problem = /^CODE: (\S+)$/m.exec(command.stderr)?.[1]
    return { ...ending, stdout: command.stdout, stderr: command.stderr, problem }
  }

  /** The command line as a process that can be signalled. */
  beginCli(args: readonly string[], options: CliOptions = {}): Program {
    return new Program('apps/cli/bin/tidemark.js', args, {
      env: { ...this.env, ...options.env },
      cwd: options.cwd ?? this.folder.path,
      ...(options.input === undefined ? {} : { input: options.input }),
      as: options.as,
    })
  }

  /** Runs a command that has to succeed; resolves to what it prints with --json. */
  async json<T>(args: readonly string[], options: CliOptions = {}): Promise<T> {
    const { code, stdout, stderr } = await this.cli(['--json', ...args], options)
    if (code !== 0) throw new Error(`tidemark ${args.join(' ')}: exit code ${code}\n${stderr}`)
    return JSON.parse(stdout) as T
  }

  initRepositories(): Promise<{ setId: string; publicKey: string }> {
    return this.json(['repo', 'init'])
  }

  backupLocally(cluster = 'main', ...flags: readonly string[]): Promise<BackupResult> {
    return this.json(['backup', 'base', cluster, '--local', ...flags])
  }

  async verifyLocally(backup: string, level: 'packs' | 'contents' = 'contents'): Promise<VerifyResult> {
    return this.json(['verify', backup, '--local', '--level', level])
  }

  async listed(...flags: readonly string[]): Promise<readonly ListedBackup[]> {
    return (await this.json<{ backups: ListedBackup[] }>(['backups', 'list', ...flags])).backups
  }

  /** An empty directory that the server's user owns. */
  newTarget(name: string): Promise<string> {
    return this.folder.serverFolder(name)
  }

  /** POST to the API; resolves to the operation's id. */
  async post(path: string, body: object): Promise<string> {
    const response = await fetch(`http://127.0.0.1:${this.apiPort}${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    })
    const answer = (await response.json()) as { operationId?: string }
    if (response.status !== 202 || answer.operationId === undefined)
      throw new Error(`POST ${path}: ${response.status} ${JSON.stringify(answer)}`)
    return answer.operationId
  }

  async operation(id: string): Promise<Operation> {
    const response = await fetch(`http://127.0.0.1:${this.apiPort}/v1/operations/${id}`)
    return operationSchema.parse(await response.json())
  }

  /** Waits until `condition` holds for a snapshot of the operation; fails at once when it ends otherwise. */
  async operationWhere(
    id: string,
    what: string,
    condition: (operation: Operation) => boolean,
    timeoutMs = 60_000,
  ): Promise<Operation> {
    const found = await until(
      async () => {
        const operation = await this.operation(id)
        return (condition(operation) || isTerminal(operation.state)) && operation
      },
      { timeoutMs, what: `operation ${id}: ${what}` },
    )
    if (!condition(found)) throw new Error(`operation ${id} ended before ${what}: ${JSON.stringify(found)}`)
    return found
  }

  finished(id: string, timeoutMs = 120_000): Promise<Operation> {
    return this.operationWhere(id, 'its end', ({ state }) => isTerminal(state), timeoutMs)
  }

  /** Resolves in mid-copy, once at least `share` of the source has been sent. */
  async midCopy(id: string, share: number): Promise<Operation> {
    return this.operationWhere(id, `${Math.round(share * 100)} % of the copy`, ({ progress }) => {
      const { phase, bytesDone = 0, bytesTotal = Infinity } = progress ?? {}
      return phase === 'copy' && bytesDone >= share * bytesTotal
    })
  }

  /** Files that anything has left in the temporary folder, or among a file repository's unfinished writes. */
  async leftovers(...repositoryFolders: readonly string[]): Promise<string[]> {
    const folders = ['temporary', ...repositoryFolders.map((name) => `${name}/.tmp`)]
    const found = await Promise.all(
      folders.map(async (name) => (await readdir(this.folder.join(name))).map((entry) => `${name}/${entry}`)),
    )
    return found.flat()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#apps].map((app) => app[Symbol.asyncDispose]()))
    await this.folder[Symbol.asyncDispose]()
  }
}

/** A repository in a new bucket; its credentials are those of `awsEnvironment`. */
export async function bucketRepository(s3: TestS3): Promise<{ url: string; endpoint: string; region: string }> {
  return { url: `s3://${await s3.createBucket()}/backups`, endpoint: s3.endpoint, region: s3.region }
}

export function awsEnvironment({ accessKeyId, secretAccessKey }: S3Settings): Record<string, string> {
  return { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey }
}

/** Resolves once the server is sending a base backup and has sent at least `bytes`. */
export async function untilStreamed(server: TestPostgres, bytes: number): Promise<void> {
  const client = await server.client()
  try {
    await until(
      async () => {
        const { rows } = await client.query<{ sent: string }>(
          'SELECT backup_streamed AS sent FROM pg_stat_progress_basebackup',
        )
        return rows.some(({ sent }) => Number(sent) >= bytes)
      },
      { everyMs: 20, what: `${bytes} bytes of a base backup` },
    )
  } finally {
    await client.end()
  }
}

/** Resolves once recovery is over: a server answers queries before that. */
export async function untilPromoted(server: TestPostgres): Promise<void> {
  await until(async () => (await server.query('SELECT 1 WHERE NOT pg_is_in_recovery()')).length === 1, {
    what: 'the end of recovery',
  })
}

/** Resolves once no connection, no slot and no advisory lock of ours is left on the server. */
export async function untilLetGo(server: TestPostgres): Promise<void> {
  await until(
    async () => {
      const [row] = await server.query<{ left: string }>(
        `SELECT (SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'tidemark%') + (SELECT count(*) FROM pg_replication_slots)
              + (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory') AS left`,
      )
      return row?.left === '0'
    },
    { what: 'connections, slots and locks to be gone' },
  )
}
