import { readFile } from 'node:fs/promises'
import { Agent as HttpAgent } from 'node:http'
import { Agent as HttpsAgent } from 'node:https'
import { createSecureContext, rootCertificates } from 'node:tls'
import { S3Client } from '@aws-sdk/client-s3'
import { NodeHttpHandler } from '@smithy/node-http-handler'
import type { Redacted } from '@tidemark/kernel'
import { StoreLocationError } from '../errors.ts'
import type { RetryPolicy } from '../retry.ts'

export interface S3Credentials {
  readonly accessKeyId: string
  readonly secretAccessKey: Redacted<string>
  readonly sessionToken?: Redacted<string>
}

export interface S3Timing {
  /** Until the connection stands, TLS included. */
  readonly connectMs: number
  /** A connection on which nothing moves in either direction. */
  readonly idleMs: number
  /** One request, in addition to the time its bytes take. */
  readonly requestMs: number
  /** Below this, a transfer counts as hanging. */
  readonly slowestBytesPerSecond: number
}

export const DEFAULT_TIMING: S3Timing = {
  connectMs: 10_000,
  idleMs: 30_000,
  requestMs: 30_000,
  slowestBytesPerSecond: 256 * 1024,
}

export interface S3Options {
  /** `https://minio.example:9000`; undefined for AWS. */
  readonly endpoint?: string
  /** Default: env AWS_REGION or the AWS profile when there is no endpoint, `us-east-1` otherwise. */
  readonly region?: string
  /** Default: the SDK's provider chain (environment, profile, container, instance). */
  readonly credentials?: S3Credentials
  /** Bucket in the path instead of the host name. Default: true with an endpoint, false for AWS. */
  readonly forcePathStyle?: boolean
  /** PEM file of further certificate authorities to trust. */
  readonly caFile?: string
  readonly timing?: Partial<S3Timing>
  readonly retry?: Partial<RetryPolicy>
}

/** The SDK with everything off that this driver does itself: retries, checksums, deadlines, logging. */
export async function createS3Client(options: S3Options, timing: S3Timing): Promise<S3Client> {
  const { endpoint, region, credentials, caFile } = options
  const ca = caFile === undefined ? undefined : [...rootCertificates, await readCertificates(caFile)]
  const agent = { keepAlive: true, maxSockets: 64 }
  return new S3Client({
    ...(endpoint !== undefined && { endpoint }),
    ...(region !== undefined ? { region } : endpoint !== undefined && { region: 'us-east-1' }),
    ...(credentials && {
      credentials: {
        accessKeyId: credentials.accessKeyId,
        secretAccessKey: credentials.secretAccessKey.reveal(),
        ...(credentials.sessionToken && { sessionToken: credentials.sessionToken.reveal() }),
      },
    }),
    forcePathStyle: options.forcePathStyle ?? endpoint !== undefined,
    maxAttempts: 1,
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    followRegionRedirects: false,
    logger: { trace() {}, debug() {}, info() {}, warn() {}, error() {} },
    requestHandler: new NodeHttpHandler({
      connectionTimeout: timing.connectMs,
      socketTimeout: timing.idleMs,
      httpAgent: new HttpAgent(agent),
      // One for all connections: each would parse a hundred and more certificates into some megabytes of its own.
      httpsAgent: new HttpsAgent({ ...agent, secureContext: createSecureContext({ ca }) }),
      logger: { trace() {}, debug() {}, info() {}, warn() {}, error() {} },
    }),
  })
}

async function readCertificates(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    throw new StoreLocationError(path, 'the file of certificate authorities (caFile) cannot be read', error)
  }
}
