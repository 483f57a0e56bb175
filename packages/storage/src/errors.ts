/**
 * What can go wrong with a store, in the words of whoever has to set it right.
 *
 * Drivers translate errno, HTTP status and vendor codes into these (never by message text) and keep
 * the vendor's error as `cause`. Anything a driver does not know passes through untranslated: a bug.
 */
import { OperationalError } from '@tidemark/kernel'

export interface StoreErrorDetail {
  readonly cause?: unknown
  readonly facts?: Readonly<Record<string, unknown>>
  /** In place of the class's own hint, where the driver knows better. */
  readonly hint?: string
}

/** No answer, or one that says "later": outage, overload, time-out, a connection cut. Safe to repeat. */
export class StoreUnavailableError extends OperationalError {
  override readonly code = 'STORE_UNAVAILABLE'
  override readonly retry = 'backoff'
  /** The store itself asked for less load. */
  readonly throttled: boolean
  /** How long the store asked to be left alone. */
  readonly retryAfterMs: number | undefined
  constructor(
    what: string,
    url: string,
    detail: StoreErrorDetail & { throttled?: boolean; retryAfterMs?: number } = {},
  ) {
    super(`${what}: ${url} does not answer as it should`, {
      hint: detail.hint ?? 'check the network path to the store and its health; the call is safe to repeat',
      facts: { url, ...detail.facts },
      cause: detail.cause,
    })
    this.throttled = detail.throttled ?? false
    this.retryAfterMs = detail.retryAfterMs
  }
}

/** The store knows us and says no, or does not know us, or we do not trust it. */
export class StoreAccessDeniedError extends OperationalError {
  override readonly code = 'STORE_ACCESS_DENIED'
  override readonly retry = 'after-operator'
  constructor(what: string, url: string, detail: StoreErrorDetail = {}) {
    super(`${what}: ${url} refuses access`, {
      hint:
        detail.hint ??
        'check the credentials and the bucket policy, or the owner and mode of the folder and whether it is mounted read-only',
      facts: { url, ...detail.facts },
      cause: detail.cause,
    })
  }
}

/** The bucket or root folder is not there. It is never made on the way: an unmounted disk looks just like this. */
export class StoreMissingError extends OperationalError {
  override readonly code = 'STORE_MISSING'
  override readonly retry = 'after-operator'
  constructor(url: string, detail: StoreErrorDetail = {}) {
    super(`${url} does not exist`, {
      hint:
        detail.hint ??
        'check the location for a typing error and the disk for being mounted; a new repository is made with `tidemark repo init`',
      facts: { url, ...detail.facts },
      cause: detail.cause,
    })
  }
}

export class ObjectNotFoundError extends OperationalError {
  override readonly code = 'OBJECT_NOT_FOUND'
  override readonly retry = 'never'
  constructor(name: string, url: string, cause?: unknown) {
    super(`there is no object ${name} in ${url}`, {
      hint: 'check retention and lifecycle rules of the store: nothing but Tidemark may delete there; another repository of the set may hold it',
      facts: { url, name },
      cause,
    })
  }
}

/** Larger than whoever reads it had reason to expect: it is not what its name promises. */
export class ObjectTooLargeError extends OperationalError {
  override readonly code = 'OBJECT_TOO_LARGE'
  override readonly retry = 'never'
  constructor(name: string, url: string, bytes: number, maxBytes: number) {
    super(`${name} in ${url} has ${bytes} bytes, at most ${maxBytes} were expected`, {
      hint: 'somebody else has written there: read it from another repository of the set, and find out who',
      facts: { url, name, bytes, maxBytes },
    })
  }
}

export class StoreFullError extends OperationalError {
  override readonly code = 'STORE_FULL'
  override readonly retry = 'after-operator'
  constructor(what: string, url: string, detail: StoreErrorDetail = {}) {
    super(`${what}: ${url} is full`, {
      hint:
        detail.hint ??
        'add space or raise the quota, or shorten retention and run maintenance; do not delete files by hand, backups may share them',
      facts: { url, ...detail.facts },
      cause: detail.cause,
    })
  }
}

/** The bytes that arrived are not those that the checksum was made of. Nothing was stored. */
export class ChecksumRefusedError extends OperationalError {
  override readonly code = 'STORE_CHECKSUM_REFUSED'
  override readonly retry = 'backoff'
  constructor(name: string, url: string, cause?: unknown) {
    super(`${url} received other bytes for ${name} than were sent`, {
      hint: 'once is an accident on the way; if it repeats, test the memory of this host and the network devices in between',
      facts: { url, name },
      cause,
    })
  }
}

export class InvalidObjectNameError extends OperationalError {
  override readonly code = 'OBJECT_NAME_INVALID'
  override readonly retry = 'never'
  constructor(name: string, reason: string, cause?: unknown) {
    super(`'${name}' cannot be the name of an object: ${reason}`, {
      hint: "names are relative, of '/'-separated parts of [A-Za-z0-9._=-], 700 characters at most",
      facts: { name, reason },
      cause,
    })
  }
}

export class StoreLocationError extends OperationalError {
  override readonly code = 'STORE_LOCATION_INVALID'
  override readonly retry = 'never'
  constructor(location: string, reason: string, cause?: unknown) {
    super(`'${location}' is no store: ${reason}`, {
      hint: 'a store is given as file:///absolute/path or s3://bucket/prefix',
      facts: { location, reason },
      cause,
    })
  }
}
