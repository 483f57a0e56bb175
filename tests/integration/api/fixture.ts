import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { FastifyInstance } from 'fastify'
import { buildServer } from '@tidemark/api/server'
import { loadConfig } from '@tidemark/config'
import type { Config } from '@tidemark/config'
import { silentLogger } from '@tidemark/kernel'
import { OperationQueue, connectRedis, startWorker } from '@tidemark/queue'
import type { RunningWorker, StartWorkerOptions } from '@tidemark/queue'
import type { OperationKind } from '@tidemark/contracts'
import type { TestRedis } from '@tidemark/testkit'
import { until } from '@tidemark/testkit'
import { quick, quickPolicies, targetOn } from '../queue/fixture.ts'

const YAML = `
clusters:
  main: { nodes: [{ host: 127.0.0.1 }], repositories: [shared] }
  owned: { nodes: [{ host: 127.0.0.1 }], repositories: [disk] }
repositories:
  shared: { url: 'file:///srv/tidemark', shared: true }
  disk: { url: 'file:///srv/disk', host: db1 }
`

function exampleConfig(): Config {
  const folder = mkdtempSync(join(tmpdir(), 'tidemark-api-'))
  try {
    writeFileSync(join(folder, 'tidemark.yaml'), YAML)
    return loadConfig({ path: join(folder, 'tidemark.yaml'), env: {} })
  } finally {
    rmSync(folder, { recursive: true })
  }
}

/** The API on a real Redis, with a prefix of its own. */
export class ApiBench implements AsyncDisposable {
  readonly app: FastifyInstance
  readonly queue: OperationQueue
  readonly #stack: AsyncDisposableStack
  readonly #workerConnection

  private constructor(
    app: FastifyInstance,
    queue: OperationQueue,
    stack: AsyncDisposableStack,
    connect: () => StartWorkerOptions<'backup'>['connection'],
  ) {
    this.app = app
    this.queue = queue
    this.#stack = stack
    this.#workerConnection = connect
  }

  static async start(redis: TestRedis): Promise<ApiBench> {
    const stack = new AsyncDisposableStack()
    const target = targetOn(redis)
    const connection = stack.use(connectRedis(target, 'producer'))
    const queue = stack.use(new OperationQueue({ connection, retryPolicies: quickPolicies }))
    const app = await buildServer({
      config: exampleConfig(),
      queue,
      checkReady: () => connection.checkReady(),
      logger: silentLogger,
      heartbeatMs: 100,
    })
    stack.defer(() => app.close())
    await until(() => connection.client.status === 'ready')
    return new ApiBench(app, queue, stack, () => stack.use(connectRedis(target, 'worker')))
  }

  async worker<K extends OperationKind>(options: Omit<StartWorkerOptions<K>, 'connection'>): Promise<RunningWorker> {
    const worker = this.#stack.use(
      startWorker({
        drainMs: 0,
        ...(options.kind === 'restore' ? {} : { retryPolicy: quick }),
        ...options,
        connection: this.#workerConnection(),
      }),
    )
    await worker.ready()
    return worker
  }

  post(url: string, payload: object, headers: Record<string, string> = {}) {
    return this.app.inject({ method: 'POST', url, payload, headers })
  }

  get(url: string, headers: Record<string, string> = {}) {
    return this.app.inject({ method: 'GET', url, headers })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync()
  }
}
