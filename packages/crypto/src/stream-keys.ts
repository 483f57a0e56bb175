import { type KeyObject, createSecretKey, hkdfSync } from 'node:crypto'
import { FORMAT_VERSION, type SuiteNumber } from './suite.ts'

/**
 * The keys of one stream; fresh with every salt. Roles: docs/repository-format.md, section 2.2.
 * As KeyObjects: a key given as bytes costs ten times as much in every call, which a frame makes four of.
 */
export interface StreamKeys {
  readonly header: KeyObject
  readonly encrypt: KeyObject
  readonly mac: KeyObject
  readonly iv: KeyObject
}

export function deriveStreamKeys(dataKey: Uint8Array, salt: Uint8Array, suite: SuiteNumber): StreamKeys {
  const key = (role: string): KeyObject => {
    const info = Buffer.concat([
      Buffer.from('tidemark'),
      Buffer.from([FORMAT_VERSION >> 8, FORMAT_VERSION & 0xff, suite]),
      Buffer.from(role),
    ])
    return createSecretKey(Buffer.from(hkdfSync('sha256', dataKey, salt, info, 32)))
  }
  return { header: key('header'), encrypt: key('encrypt'), mac: key('mac'), iv: key('iv') }
}
