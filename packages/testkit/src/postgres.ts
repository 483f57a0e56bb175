/**
 * A running PostgreSQL server for tests: made fresh by `startPostgres`, or put on an existing data
 * directory by `adoptPostgres`. The server is a child of this process and ends with it.
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Client, type QueryResultRow } from 'pg'
import { findPostgresBin } from './postgres-binaries.ts'
import { runTool, type RunOptions, type ToolOutput } from './run-tool.ts'
import { ServiceProcess } from './service-process.ts'
import type { OsUser } from './unprivileged-user.ts'

export type StopMode = 'smart' | 'fast' | 'immediate'
const SIGNALS = { smart: 'SIGTERM', fast: 'SIGINT', immediate: 'SIGQUIT' } as const

/** @internal what `startPostgres` and `adoptPostgres` hand to the class. */
export interface PostgresPlace {
  /** Where clients connect: an address, or the absolute path of a socket folder. */
  readonly host: string
  readonly port: number
  readonly user: string
  readonly password: string
  readonly database: string
  readonly dataDirectory: string
  readonly binDirectory: string
  readonly socketDirectory: string | undefined
  readonly osUser: OsUser | undefined
  readonly logFile: string
  /** `-c name=value` for the server. */
  readonly settings: Readonly<Record<string, string>>
  readonly startTimeoutMs: number
  /** What else is to go when this goes: the folder it was made in. */
  readonly owns: AsyncDisposable | undefined
}

export class TestPostgres implements AsyncDisposable {
  readonly host: string
  readonly port: number
  readonly user: string
  readonly password: string
  readonly database: string
  readonly dataDirectory: string
  readonly binDirectory: string
  readonly socketDirectory: string | undefined
  readonly osUser: OsUser | undefined
  readonly #place: PostgresPlace
  readonly #clients = new Set<Client>()
  #process: ServiceProcess | undefined

  /** @internal */
  constructor(place: PostgresPlace) {
    this.#place = place
    this.host = place.host
    this.port = place.port
    this.user = place.user
    this.password = place.password
    this.database = place.database
    this.dataDirectory = place.dataDirectory
    this.binDirectory = place.binDirectory
    this.socketDirectory = place.socketDirectory
    this.osUser = place.osUser
  }

  /** libpq URI, password included. */
  get url(): string {
    return this.urlOf(this.database)
  }

  urlOf(database: string): string {
    const login = `${encodeURIComponent(this.user)}${this.password === '' ? '' : `:${encodeURIComponent(this.password)}`}`
    return this.host.startsWith('/')
      ? `postgresql://${login}@/${encodeURIComponent(database)}?host=${encodeURIComponent(this.host)}&port=${this.port}`
      : `postgresql://${login}@${this.host}:${this.port}/${encodeURIComponent(database)}`
  }

  /** Pid of the postmaster while it runs. */
  get pid(): number | undefined {
    return this.#process?.ended === false ? this.#process.pid : undefined
  }

  get running(): boolean {
    return this.pid !== undefined
  }

  /** A connected client. Closed with the server, if the test has not done so; a lost connection does not throw by itself. */
  async client(database = this.database): Promise<Client> {
    const client = new Client({
      host: this.host,
      port: this.port,
      user: this.user,
      password: this.password,
      database,
      connectionTimeoutMillis: 10_000,
    })
    client.on('error', () => {})
    await client.connect()
    this.#clients.add(client)
    client.once('end', () => this.#clients.delete(client))
    return client
  }

  /** Runs one statement (or several, without parameters) on a connection of its own; resolves to the (last one's) rows. */
  async query<Row extends QueryResultRow = Record<string, unknown>>(sql: string, database?: string): Promise<Row[]> {
    const client = await this.client(database)
    try {
      const result: unknown = await client.query<Row>(sql)
      const last = (Array.isArray(result) ? result.at(-1) : result) as { rows: Row[] }
      return last.rows
    } finally {
      await client.end()
    }
  }

  /** PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE for client tools. */
  get environment(): Record<string, string> {
    const { host, user, password, database } = this
    return {
      PGHOST: host,
      PGPORT: String(this.port),
      PGUSER: user,
      PGPASSWORD: password,
      PGDATABASE: database,
      PGCONNECT_TIMEOUT: '10',
    }
  }

  /** Runs a client tool (psql, pg_dump, pgbench, pg_amcheck, …) against this server. */
  run(tool: string, args: readonly string[], options: Omit<RunOptions, 'as'> = {}): Promise<ToolOutput> {
    const own = join(this.binDirectory, tool)
    const path = existsSync(own) ? own : join(findPostgresBin(), tool)
    return runTool(path, args, { ...options, env: { ...this.environment, ...options.env } })
  }

  /** Starts a stopped or killed server; resolves once it answers. Throws with the end of the log when it ends instead. */
  async start(): Promise<void> {
    if (this.running) return
    const { binDirectory, dataDirectory, settings, osUser, logFile } = this.#place
    const server = new ServiceProcess({
      path: join(binDirectory, 'postgres'),
      args: ['-D', dataDirectory, ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])],
      as: osUser,
      cwd: dataDirectory,
      logFile,
      env: { LC_ALL: 'C.UTF-8', TZ: 'UTC' },
    })
    this.#process = server
    await server.ready(`PostgreSQL in ${dataDirectory}`, () => this.#answers(), this.#place.startTimeoutMs)
  }

  async stop(mode: StopMode = 'fast'): Promise<void> {
    await this.#process?.end(SIGNALS[mode])
  }

  /** As a power cut takes it: SIGKILL for the postmaster and all its children. `start()` then recovers from WAL. */
  async killHard(): Promise<void> {
    if (this.running) await this.#process?.killTree()
  }

  /** Everything the server has logged since it was made. */
  log(): string {
    return readFileSync(this.#place.logFile, 'utf8')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const clients = [...this.#clients]
    await Promise.allSettled(clients.map((client) => client.end()))
    await this.stop('immediate')
    await this.#place.owns?.[Symbol.asyncDispose]()
  }

  async #answers(): Promise<boolean> {
    const client = new Client({
      host: this.host,
      port: this.port,
      user: this.user,
      password: this.password,
      database: this.database,
      connectionTimeoutMillis: 2_000,
    })
    client.on('error', () => {})
    try {
      await client.connect()
      await client.query('SELECT 1')
      return true
    } finally {
      await client.end().catch(() => {})
    }
  }
}
