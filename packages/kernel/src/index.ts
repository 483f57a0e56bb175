export {
  AbortedError,
  OperationalError,
  RelayedError,
  abortError,
  problemOf,
  soonestToPass,
  throwIfAborted,
} from './errors.ts'
export type { ErrorDetail, Problem, Retry } from './errors.ts'
export {
  formatLsn,
  lsn,
  parseLsn,
  parseWalFileName,
  segmentNumber,
  segmentRange,
  segmentStart,
  walFileName,
} from './lsn.ts'
export type { Lsn } from './lsn.ts'
export { systemClock } from './clock.ts'
export type { Clock } from './clock.ts'
export { silentLogger } from './logger.ts'
export type { Logger } from './logger.ts'
export { Redacted } from './redacted.ts'
export { GiB, KiB, MiB, formatBytes, formatDuration } from './units.ts'
export type { Progress, ReportProgress } from './progress.ts'
export { PAGE_BYTES, isNoDirectAccess, isPageAligned, pageAligned } from './page-aligned.ts'
export { freeBuffer, ownArrayBuffer } from './free-buffer.ts'
export { keepHeapSmall } from './small-heap.ts'
export { randomId } from './random-id.ts'
export { ACCEPTED_KEY_FORMS, parseKeyText } from './key-text.ts'
export { hostNameOf, isLoopback } from './loopback.ts'
