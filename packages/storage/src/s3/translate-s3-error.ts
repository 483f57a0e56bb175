/** HTTP status, S3 error code and socket errno → our errors. Never the message text: it differs between stores. */
import { OperationalError } from '@tidemark/kernel'
import {
  ChecksumRefusedError,
  ObjectNotFoundError,
  StoreAccessDeniedError,
  StoreFullError,
  StoreMissingError,
  StoreUnavailableError,
} from '../errors.ts'

export interface S3ErrorContext {
  readonly what: string
  readonly url: string
  readonly name?: string
  /** Host clock, for a Retry-After that gives a date. */
  readonly now: Date
}

/** What the SDK hangs on its errors, as far as it is there. */
export interface S3Failure {
  readonly name?: string
  readonly code?: string
  readonly $metadata?: { readonly httpStatusCode?: number; readonly requestId?: string }
  readonly $response?: { readonly statusCode?: number; readonly headers?: Readonly<Record<string, string>> }
}

const FULL = new Set(['QuotaExceeded', 'StorageFull', 'XMinioStorageFull', 'InsufficientStorage'])
const BAD_CHECKSUM = new Set(['BadDigest', 'InvalidDigest', 'XAmzContentSHA256Mismatch', 'XAmzContentChecksumMismatch'])
const THROTTLED = new Set([
  'SlowDown',
  'SlowDownRead',
  'SlowDownWrite',
  'Throttling',
  'ThrottlingException',
  'TooManyRequests',
  'RequestLimitExceeded',
])
const DENIED = new Set([
  'ExpiredToken',
  'InvalidToken',
  'InvalidAccessKeyId',
  'SignatureDoesNotMatch',
  'AccessDenied',
  'CredentialsProviderError',
  'TokenProviderError',
])
const WRONG_REGION = new Set([
  'PermanentRedirect',
  'AuthorizationHeaderMalformed',
  'TemporaryRedirect',
  'IllegalLocationConstraintException',
])
const PASSING = new Set([
  'TimeoutError',
  'RequestTimeout',
  'RequestTimeoutException',
  'InternalError',
  'OperationAborted',
  'ConditionalRequestConflict',
  'IncompleteBody',
])
const CUT = new Set([
  'ECONNRESET',
  'ECONNREFUSED',
  'ECONNABORTED',
  'EPIPE',
  'ETIMEDOUT',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'EHOSTDOWN',
  'ENETUNREACH',
  'ENETDOWN',
  'EPROTO',
  'ERR_STREAM_PREMATURE_CLOSE',
  'ERR_SOCKET_CONNECTION_TIMEOUT',
])
const UNTRUSTED = /^(CERT_|UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_|ERR_TLS_CERT_)/

/** Errors that are not known here are returned as they came. */
export function translateS3Error(error: unknown, context: S3ErrorContext): unknown {
  if (error instanceof OperationalError || !(error instanceof Error)) return error
  const { what, url, name, now } = context
  const failure = error as S3Failure
  const status = statusOf(failure)
  const code = failure.code ?? ''
  const vendor = failure.name ?? ''
  const facts = {
    status,
    s3Code: vendor,
    errno: failure.code,
    requestId: failure.$metadata?.requestId,
    ...(name !== undefined && { name }),
  }
  const detail = { cause: error, facts }

  if (vendor === 'NoSuchBucket') return new StoreMissingError(url, detail)
  if (vendor === 'NoSuchKey') return new ObjectNotFoundError(name ?? what, url, error)
  if (FULL.has(vendor) || status === 507) return new StoreFullError(what, url, detail)
  if (BAD_CHECKSUM.has(vendor)) return new ChecksumRefusedError(name ?? what, url, error)
  if (vendor === 'RequestTimeTooSkewed') {
    return new StoreAccessDeniedError(what, url, {
      ...detail,
      hint: "this host's clock is off by more than 15 minutes: check its time synchronisation",
    })
  }
  if (WRONG_REGION.has(vendor) || status === 301 || status === 307) {
    return new StoreAccessDeniedError(what, url, {
      ...detail,
      hint: 'the bucket lies in another region: set `region`, and `endpoint` where it is not AWS',
    })
  }
  if (UNTRUSTED.test(code)) {
    return new StoreAccessDeniedError(what, url, {
      ...detail,
      hint: "the store's certificate is not trusted: set `caFile` to its authority's PEM file, and check host name and expiry",
    })
  }
  if (THROTTLED.has(vendor) || status === 503 || status === 429) {
    return new StoreUnavailableError(what, url, { ...detail, throttled: true, ...retryAfter(failure, now) })
  }
  if (PASSING.has(vendor) || CUT.has(code) || code.startsWith('HPE_') || (status !== undefined && status >= 500)) {
    return new StoreUnavailableError(what, url, { ...detail, ...retryAfter(failure, now) })
  }
  if (DENIED.has(vendor) || status === 401 || status === 403) return new StoreAccessDeniedError(what, url, detail)
  return error
}

export function statusOf(failure: S3Failure): number | undefined {
  return failure.$metadata?.httpStatusCode ?? failure.$response?.statusCode
}

/** Seconds or an HTTP date (RFC 9110 §10.2.3); at most five minutes. */
function retryAfter(failure: S3Failure, now: Date): { retryAfterMs?: number } {
  const value = failure.$response?.headers?.['retry-after']
  if (value === undefined) return {}
  const ms = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - now.getTime()
  return Number.isFinite(ms) ? { retryAfterMs: Math.min(Math.max(ms, 0), 300_000) } : {}
}
