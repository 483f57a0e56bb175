import { type Keyring, UnknownDataKeyError } from '@tidemark/crypto'

/** Data keys as they cross into a thread. */
export interface ThreadKeys {
  readonly dataKeys: readonly { readonly id: string; readonly bytes: Uint8Array }[]
  readonly digestKey: Uint8Array
}

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
