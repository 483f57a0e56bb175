/** A source behind a proxy, a real S3 server behind another, and whole operations between them. */
import { S3FaultProxy, TcpProxy, type TestPostgres, sharedS3, startPostgres } from '@tidemark/testkit'
import { Fleet, type RepositoryChoice, awsEnvironment } from '../../support/fleet.ts'
import { initHere } from '../../support/operate.ts'
import { fingerprint } from '../../support/sample-cluster.ts'
import { fillSmallCluster } from '../../support/small-cluster.ts'
import type { Scene } from '../../support/aftermath.ts'

export class FaultBench implements AsyncDisposable {
  readonly source: TestPostgres
  /** Between operations and the source. */
  readonly server: TcpProxy
  /** Of the source, which nobody writes to. */
  readonly before: Readonly<Record<string, string>>
  readonly #stack: AsyncDisposableStack
  #store: S3FaultProxy | undefined
  #bucket = ''
  #prefixes = 0

  private constructor(
    stack: AsyncDisposableStack,
    source: TestPostgres,
    server: TcpProxy,
    before: Record<string, string>,
  ) {
    this.#stack = stack
    this.source = source
    this.server = server
    this.before = before
  }

  static async start(): Promise<FaultBench> {
    await using stack = new AsyncDisposableStack()
    const source = stack.use(await startPostgres({ name: 'faults' }))
    await fillSmallCluster(source)
    const server = stack.use(await TcpProxy.start(source))
    const before = await fingerprint(source)
    return new FaultBench(stack.move(), source, server, before)
  }

  /** Between operations and S3; started with the first call. */
  async s3(): Promise<S3FaultProxy> {
    if (this.#store !== undefined) return this.#store
    const behind = this.#stack.use(await sharedS3())
    this.#bucket = await behind.createBucket()
    this.#store = this.#stack.use(await S3FaultProxy.start(behind))
    return this.#store
  }

  /** A repository of its own in the bucket. */
  async bucket(more: { readonly required?: boolean } = {}): Promise<RepositoryChoice> {
    const { endpoint, region } = await this.s3()
    this.#prefixes += 1
    return {
      url: `s3://${this.#bucket}/r${this.#prefixes}`,
      endpoint,
      region,
      accessKeyId: { env: 'AWS_ACCESS_KEY_ID' },
      secretAccessKey: { env: 'AWS_SECRET_ACCESS_KEY' },
      ...more,
    }
  }

  /** Every proxy as it should be; an initialised set in the repositories given, one folder `local` by default. */
  async scene(
    repositories: Readonly<Record<string, RepositoryChoice>> = { local: { folder: 'local' } },
  ): Promise<Scene & AsyncDisposable> {
    this.server.heal()
    this.#store?.heal()
    const { user, password } = this.source
    const fleet = await Fleet.create({
      clusters: { main: { host: this.server.host, port: this.server.port, user, password } },
      repositories,
      packBytes: '1MiB',
      env: this.#store === undefined ? {} : awsEnvironment(this.#store),
    })
    await initHere(fleet.config)
    const folders = Object.values(repositories).flatMap((choice) =>
      'folder' in choice && typeof choice.folder === 'string' ? [choice.folder] : [],
    )
    return {
      fleet,
      source: this.source,
      folders,
      debris: new Set(),
      [Symbol.asyncDispose]: () => fleet[Symbol.asyncDispose](),
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync()
  }
}
