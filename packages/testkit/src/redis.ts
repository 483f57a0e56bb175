import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { freePort } from './free-port.ts'
import { ServiceProcess } from './service-process.ts'
import { TemporaryFolder } from './temporary-folder.ts'

export interface StartRedisOptions {
  /** More arguments of redis-server, over the defaults. */
  readonly args?: readonly string[]
  /** Default: env TIDEMARK_TEST_REDIS_BIN, else `redis-server` on PATH. */
  readonly path?: string
}

/** A redis-server with AOF and `noeviction`, as BullMQ needs it, on a loopback port of its own. */
export class TestRedis implements AsyncDisposable {
  readonly host = '127.0.0.1'
  readonly port: number
  readonly #folder: TemporaryFolder
  readonly #options: StartRedisOptions
  #process: ServiceProcess | undefined

  /** @internal */
  constructor(folder: TemporaryFolder, port: number, options: StartRedisOptions) {
    this.#folder = folder
    this.port = port
    this.#options = options
  }

  get url(): string {
    return `redis://${this.host}:${this.port}`
  }

  get running(): boolean {
    return this.#process?.ended === false
  }

  /** Starts it again, on the same port and data, after `stop` or `killHard`. */
  async start(): Promise<void> {
    if (this.running) return
    const server = new ServiceProcess({
      path: this.#options.path ?? process.env['TIDEMARK_TEST_REDIS_BIN'] ?? 'redis-server',
      args: [
        ['--port', String(this.port), '--bind', this.host, '--dir', this.#folder.path, '--daemonize', 'no'],
        ['--appendonly', 'yes', '--appendfsync', 'everysec', '--save', '', '--maxmemory-policy', 'noeviction'],
        this.#options.args ?? [],
      ].flat(),
      as: undefined,
      cwd: this.#folder.path,
      logFile: this.#folder.join('redis.log'),
    })
    this.#process = server
    await server.ready('redis-server', () => answersPing(this.host, this.port))
  }

  async stop(): Promise<void> {
    await this.#process?.end('SIGTERM')
  }

  /** SIGKILL: up to a second of writes may be lost, as after a crash. */
  async killHard(): Promise<void> {
    await this.#process?.end('SIGKILL')
  }

  async restart(): Promise<void> {
    await this.stop()
    await this.start()
  }

  log(): string {
    return readFileSync(this.#folder.join('redis.log'), 'utf8')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.killHard()
    await this.#folder[Symbol.asyncDispose]()
  }
}

export async function startRedis(options: StartRedisOptions = {}): Promise<TestRedis> {
  const folder = await TemporaryFolder.create('redis')
  const redis = new TestRedis(folder, await freePort(), options)
  try {
    await redis.start()
    return redis
  } catch (error) {
    await redis[Symbol.asyncDispose]()
    throw error
  }
}

function answersPing(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port })
    const settle = (answer: boolean): void => {
      socket.destroy()
      resolve(answer)
    }
    socket.setTimeout(1000, () => settle(false))
    socket.once('error', () => settle(false))
    socket.once('connect', () => socket.write('PING\r\n'))
    socket.once('data', (reply) => settle(/^\+PONG|^-NOAUTH/.test(reply.toString('latin1'))))
  })
}
