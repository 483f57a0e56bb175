import { isAbsolute } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Clock, Logger } from '@tidemark/kernel'
import { StoreLocationError } from './errors.ts'
import { FileObjectStore } from './file/file-object-store.ts'
import { isObjectName } from './object-name.ts'
import type { ObjectStore } from './object-store.ts'
import type { S3Options } from './s3/s3-client.ts'

export interface OpenObjectStoreOptions {
  readonly clock?: Clock
  readonly logger?: Logger
  /** Make the folder of a file store if it is missing. Buckets are never made here. */
  readonly create?: boolean
  readonly s3?: S3Options
}

/**
 * The store that a location names: `file:///absolute/path` or `s3://bucket/prefix`.
 *
 * @throws {StoreLocationError} it names neither. @throws {StoreMissingError} the folder is not there; a
 *   missing bucket shows with the first request.
 */
export async function openObjectStore(location: string, options: OpenObjectStoreOptions = {}): Promise<ObjectStore> {
  const { s3, create = false, ...rest } = options
  const url = parse(location)
  if (url.protocol === 'file:') return FileObjectStore.open(pathOf(location, url), { ...rest, create })
  const prefix = url.pathname.replaceAll(/^\/|\/$/g, '')
  if (!/^[a-z0-9][a-z0-9._-]{2,62}$/i.test(url.hostname)) {
    throw new StoreLocationError(location, 'the bucket name is to have 3 to 63 letters, digits, dots or hyphens')
  }
  if (prefix !== '' && !isObjectName(prefix)) {
    throw new StoreLocationError(location, "the prefix is to be '/'-separated parts of [A-Za-z0-9._=-]")
  }
  // Loaded only where it is used: the SDK is most of the start-up time of a short-lived command.
  const { S3ObjectStore } = await import('./s3/s3-object-store.ts')
  return S3ObjectStore.open({ ...s3, ...rest, bucket: url.hostname, prefix })
}

function parse(location: string): URL {
  const url = URL.parse(location)
  if (url === null) throw new StoreLocationError(location, 'it is not a URL')
  if (url.protocol !== 'file:' && url.protocol !== 's3:') {
    throw new StoreLocationError(location, `'${url.protocol}' is not known`)
  }
  if (url.search !== '' || url.hash !== '' || url.username !== '' || url.password !== '' || url.port !== '') {
    throw new StoreLocationError(url.origin, 'it carries more than a path; credentials and endpoint are options')
  }
  return url
}

function pathOf(location: string, url: URL): string {
  if (url.hostname !== '') throw new StoreLocationError(location, 'a file store has three slashes: file:///path')
  const path = fileURLToPath(url)
  const trimmed = path.length > 1 ? path.replace(/\/+$/, '') : path
  if (!isAbsolute(trimmed) || trimmed === '/' || trimmed === '') {
    throw new StoreLocationError(location, 'the root of the file system is not a place for a store')
  }
  return trimmed
}
