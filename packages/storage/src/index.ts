export type {
  GetOptions,
  ListOptions,
  ObjectEntry,
  ObjectName,
  ObjectStore,
  PutOptions,
  StoreCapabilities,
} from './object-store.ts'
export {
  ChecksumRefusedError,
  InvalidObjectNameError,
  ObjectNotFoundError,
  ObjectTooLargeError,
  StoreAccessDeniedError,
  StoreFullError,
  StoreLocationError,
  StoreMissingError,
  StoreUnavailableError,
} from './errors.ts'
export { checkObjectName, isObjectName } from './object-name.ts'
export { openObjectStore } from './open-object-store.ts'
export type { OpenObjectStoreOptions } from './open-object-store.ts'
export type { S3Credentials, S3Options, S3Timing } from './s3/s3-client.ts'
export type { RetryPolicy } from './retry.ts'
