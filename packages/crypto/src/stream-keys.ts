import { hkdfSync } from 'node:crypto'
import { FORMAT_VERSION, type SuiteNumber } from './suite.ts'

/** The keys of one stream; fresh with every salt. Roles: docs/repository-format.md, section 2.2. */
export interface StreamKeys {
  readonly header: Buffer
  readonly encrypt: Buffer
  readonly mac: Buffer
  readonly iv: Buffer
}

export function deriveStreamKeys(dataKey: Uint8Array, salt: Uint8Array, suite: SuiteNumber): StreamKeys {
  const key = (role: string): Buffer => {
    const info = Buffer.concat([
      Buffer.from('tidemark'),
      Buffer.from([FORMAT_VERSION >> 8, FORMAT_VERSION & 0xff, suite]),
      Buffer.from(role),
    ])
    return Buffer.from(hkdfSync('sha256', dataKey, salt, info, 32))
  }
  return { header: key('header'), encrypt: key('encrypt'), mac: key('mac'), iv: key('iv') }
}
