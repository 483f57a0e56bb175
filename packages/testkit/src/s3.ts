/**
 * A real S3 server: Ceph's RADOS gateway, over http and https, with signatures checked.
 *
 * Where env TIDEMARK_TEST_S3_URL names one (`http://key:secret@host:port[?region=…]`), that is used
 * and nothing is started.
 */
import { randomBytes } from 'node:crypto'
import { readFileSync, readdirSync } from 'node:fs'
import { Agent } from 'node:https'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import {
  CreateBucketCommand,
  DeleteBucketCommand,
  DeleteObjectCommand,
  ListObjectVersionsCommand,
  PutBucketVersioningCommand,
  S3Client,
} from '@aws-sdk/client-s3'
import { freePort } from './free-port.ts'
import { commandOf, guardProcess, isRunning, releaseProcess } from './reaper.ts'
import { runTool } from './run-tool.ts'
import { TemporaryFolder } from './temporary-folder.ts'
import { until } from './until.ts'

/** What a client needs to know; plain data, so that it can cross processes. */
export interface S3Settings {
  readonly endpoint: string
  /** The same server over TLS; undefined for an external one without. */
  readonly httpsEndpoint: string | undefined
  /** PEM file with the certificate that `httpsEndpoint` is signed by. */
  readonly caFile: string | undefined
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly region: string
}

export class TestS3 implements S3Settings, AsyncDisposable {
  readonly endpoint: string
  readonly httpsEndpoint: string | undefined
  readonly caFile: string | undefined
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly region: string
  readonly #end: () => Promise<void>
  readonly #removeBuckets: boolean
  readonly #buckets: string[] = []
  readonly #clients: S3Client[] = []

  /** @internal */
  constructor(settings: S3Settings, options: { removeBuckets: boolean; end?: () => Promise<void> }) {
    this.endpoint = settings.endpoint
    this.httpsEndpoint = settings.httpsEndpoint
    this.caFile = settings.caFile
    this.accessKeyId = settings.accessKeyId
    this.secretAccessKey = settings.secretAccessKey
    this.region = settings.region
    this.#removeBuckets = options.removeBuckets
    this.#end = options.end ?? (async () => {})
  }

  /** A plain SDK client, closed with this. */
  client(options: { https?: boolean } = {}): S3Client {
    const endpoint = options.https === true ? this.httpsEndpoint : this.endpoint
    if (endpoint === undefined) throw new Error('this S3 server has no https endpoint')
    const client = new S3Client({
      endpoint,
      region: this.region,
      forcePathStyle: true,
      credentials: { accessKeyId: this.accessKeyId, secretAccessKey: this.secretAccessKey },
      ...(this.caFile !== undefined &&
        endpoint.startsWith('https') && {
          requestHandler: { httpsAgent: new Agent({ ca: readFileSync(this.caFile) }) },
        }),
    })
    this.#clients.push(client)
    return client
  }

  /** A new bucket; resolves to its name. A versioned one does not enforce conditional puts on RGW. */
  async createBucket(
    name = `tidemark-${randomBytes(5).toString('hex')}`,
    options: { versioned?: boolean; objectLock?: boolean } = {},
  ): Promise<string> {
    const client = this.client()
    await client.send(new CreateBucketCommand({ Bucket: name, ObjectLockEnabledForBucket: options.objectLock }))
    this.#buckets.push(name)
    if (options.versioned === true) {
      await client.send(
        new PutBucketVersioningCommand({ Bucket: name, VersioningConfiguration: { Status: 'Enabled' } }),
      )
    }
    return name
  }

  /** Ends the server; a shared one goes on for others, an external one only loses the buckets made here. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#removeBuckets) {
      for (const bucket of this.#buckets) await removeBucket(this.client(), bucket)
    }
    for (const client of this.#clients) client.destroy()
    await this.#end()
  }
}

/** Starts a server (about 16 s), or connects to the one of env TIDEMARK_TEST_S3_URL. Most tests want `sharedS3`. */
export async function startS3(): Promise<TestS3> {
  const external = process.env['TIDEMARK_TEST_S3_URL']
  if (external !== undefined && external !== '') return new TestS3(parseS3Url(external), { removeBuckets: true })
  const folder = await TemporaryFolder.create('s3')
  const end = async (): Promise<void> => {
    await endGateway(folder.path)
    await folder[Symbol.asyncDispose]()
  }
  try {
    const settings = await startGateway(folder.path)
    for (const pid of gatewayPids(folder.path)) guardProcess(pid)
    return new TestS3(settings, { removeBuckets: false, end })
  } catch (error) {
    await end()
    throw error
  }
}

/** @internal Brings the gateway up with all its state in `folder`; its daemons outlive this process until `endGateway`. */
export async function startGateway(folder: string): Promise<S3Settings> {
  const ports = [await freePort(), await freePort(), await freePort(), await freePort()]
  const [http, https] = ports
  const accessKeyId = `test${randomBytes(6).toString('hex')}`
  const secretAccessKey = randomBytes(16).toString('hex')
  const script = fileURLToPath(new URL('../scripts/rgw.sh', import.meta.url))
  await runTool('/bin/bash', [script, folder, ...ports.map(String)], {
    env: { TIDEMARK_RGW_ACCESS_KEY: accessKeyId, TIDEMARK_RGW_SECRET_KEY: secretAccessKey },
  })
  return {
    endpoint: `http://127.0.0.1:${http}`,
    httpsEndpoint: `https://127.0.0.1:${https}`,
    caFile: join(folder, 'tls', 'cert.pem'),
    accessKeyId,
    secretAccessKey,
    region: 'us-east-1',
  }
}

/** @internal The data is thrown away with the folder: no reason to wait for an orderly end. */
export async function endGateway(folder: string): Promise<void> {
  const pids = gatewayPids(folder)
  for (const pid of pids) process.kill(pid, 'SIGKILL')
  await until(() => pids.every((pid) => !isRunning(pid)), { what: 'the S3 server to end', everyMs: 10 })
  for (const pid of pids) releaseProcess(pid)
}

function gatewayPids(folder: string): number[] {
  const run = join(folder, 'run')
  let files: string[]
  try {
    files = readdirSync(run).filter((name) => name.endsWith('.pid'))
  } catch {
    return []
  }
  return files
    .map((name) => Number(readFileSync(join(run, name), 'utf8')))
    .filter((pid) => pid > 0 && /^(ceph-mon|ceph-osd|radosgw)$/.test(commandOf(pid) ?? ''))
}

function parseS3Url(text: string): S3Settings {
  const url = new URL(text)
  const region = url.searchParams.get('region') ?? 'us-east-1'
  if (url.username === '' || url.password === '') {
    throw new Error('TIDEMARK_TEST_S3_URL is to be of the form http://key:secret@host:port[?region=…]')
  }
  return {
    endpoint: url.origin,
    httpsEndpoint: url.protocol === 'https:' ? url.origin : undefined,
    caFile: undefined,
    accessKeyId: decodeURIComponent(url.username),
    secretAccessKey: decodeURIComponent(url.password),
    region,
  }
}

async function removeBucket(client: S3Client, bucket: string): Promise<void> {
  for (;;) {
    const page = await client.send(new ListObjectVersionsCommand({ Bucket: bucket, MaxKeys: 500 }))
    const versions = [...(page.Versions ?? []), ...(page.DeleteMarkers ?? [])]
    if (versions.length === 0) break
    for (let first = 0; first < versions.length; first += 20) {
      const some = versions.slice(first, first + 20)
      await Promise.all(
        some.map(({ Key, VersionId }) => client.send(new DeleteObjectCommand({ Bucket: bucket, Key, VersionId }))),
      )
    }
  }
  await client.send(new DeleteBucketCommand({ Bucket: bucket }))
}
