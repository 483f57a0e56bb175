/** The two ways to seal a frame. The numbers are stored: docs/repository-format.md, section 2.1. */
export const SUITES = { 'aes-256-cbc-hmac-sha-256': 1, 'aes-256-gcm': 2 } as const
export type SuiteName = keyof typeof SUITES
export type SuiteNumber = (typeof SUITES)[SuiteName]

export const FORMAT_VERSION = 1
/** Largest plaintext of one frame. */
export const FRAME_BYTES = 1_048_576
/** Longest ciphertext: a full frame stored raw, with a whole block of padding. */
export const MAX_CIPHERTEXT_BYTES = FRAME_BYTES + 16
export const HEADER_BYTES = 160
export const FRAME_HEADER_BYTES = 12
/** What a frame takes beyond its plaintext when it is stored raw: its header, a block of padding, the longer tag. */
export const MAX_FRAME_OVERHEAD = FRAME_HEADER_BYTES + 16 + 32

export const tagBytes = (suite: SuiteNumber): number => (suite === 1 ? 32 : 16)
