import { type Keyring, UnknownDataKeyError } from '@tidemark/crypto'
import type { ThreadKeys } from './serve-thread.ts'

export function threadKeys(keyring: Keyring): ThreadKeys {
  return { dataKeys: keyring.dataKeys(), digestKey: keyring.digestKey }
}

/** The lookup that openers ask for. */
export function keyLookup(keys: ThreadKeys): (dataKeyId: string) => Uint8Array {
  const byId = new Map(keys.dataKeys.map(({ id, bytes }) => [id, bytes]))
  return (id) => {
    const key = byId.get(id)
    if (key === undefined) throw new UnknownDataKeyError(id)
    return key
  }
}
