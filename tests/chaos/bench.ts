/** What stands for a whole campaign, one per lane: a source behind a proxy, a bucket behind another, Redis. Rounds leave it as they found it. */
import {
  S3FaultProxy,
  TcpProxy,
  type TestPostgres,
  type TestRedis,
  type TestS3,
  runTool,
  startPostgres,
  startRedis,
} from '@tidemark/testkit'
import type { RepositoryChoice } from '../support/fleet.ts'
import { fillSmallCluster } from '../support/small-cluster.ts'
import { Library } from './library.ts'

export class ChaosBench implements AsyncDisposable {
  readonly source: TestPostgres
  /** Between operations and the source. */
  readonly server: TcpProxy
  /** Between operations and S3. */
  readonly store: S3FaultProxy
  readonly bucket: string
  readonly redis: TestRedis
  readonly #stack: AsyncDisposableStack
  #library: Promise<Library> | undefined

  private constructor(
    stack: AsyncDisposableStack,
    parts: Pick<ChaosBench, 'source' | 'server' | 'store' | 'bucket' | 'redis'>,
  ) {
    this.#stack = stack
    this.source = parts.source
    this.server = parts.server
    this.store = parts.store
    this.bucket = parts.bucket
    this.redis = parts.redis
  }

  static async start(s3: TestS3): Promise<ChaosBench> {
    await using stack = new AsyncDisposableStack()
    const source = stack.use(
      await startPostgres({ name: 'chaos', settings: { max_wal_senders: '20', max_replication_slots: '20' } }),
    )
    await fillSmallCluster(source)
    await source.query('CREATE TABLE ticks (n int PRIMARY KEY)')
    const server = stack.use(await TcpProxy.start(source))
    const store = stack.use(await S3FaultProxy.start(s3))
    const redis = stack.use(await startRedis())
    const bucket = await s3.createBucket()
    return new ChaosBench(stack.move(), { source, server, store, bucket, redis })
  }

  /** Every proxy passes everything, and every service runs. */
  async heal(): Promise<void> {
    this.server.heal()
    this.store.heal()
    await this.source.start()
    await this.redis.start()
  }

  /** A repository of its own in the bucket. */
  bucketAt(prefix: string): RepositoryChoice {
    const { endpoint, region } = this.store
    return {
      url: `s3://${this.bucket}/${prefix}`,
      endpoint,
      region,
      accessKeyId: { env: 'AWS_ACCESS_KEY_ID' },
      secretAccessKey: { env: 'AWS_SECRET_ACCESS_KEY' },
    }
  }

  /** Made when it is first asked for; nothing may be armed then. */
  library(): Promise<Library> {
    this.#library ??= Library.make(this).then((library) => this.#stack.use(library))
    return this.#library
  }

  async wipeRedis(): Promise<void> {
    await runTool('redis-cli', ['-p', String(this.redis.port), 'FLUSHALL'])
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync()
  }
}
