export {
  KeyMalformedError,
  KeyMissingError,
  SealRefusedError,
  SignatureRefusedError,
  UnknownDataKeyError,
  WrongKeyError,
} from './errors.ts'
export { KeyEncryptionKey, generateKeyText, parseKeyEncryptionKey } from './key-encryption-key.ts'
export { Keyring, createKeyring, dataKeyIdsOf, openKeyring } from './keyring.ts'
export type { DataKey } from './keyring.ts'
export { openSignedDocument } from './signed-document.ts'
export { StreamOpener, StreamSealer, sealBytes, sealPipe, unsealBytes, unsealPipe } from './sealed-stream.ts'
export type { SealOptions } from './sealed-stream.ts'
export type { StreamIdentity } from './stream-header.ts'
export { FORMAT_VERSION, FRAME_BYTES, HEADER_BYTES, SUITES } from './suite.ts'
export type { SuiteName } from './suite.ts'
export { keyedDigest, timelineHistoryDigest } from './keyed-digest.ts'
