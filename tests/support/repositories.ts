/** Repository sets for tests. */
import { randomBytes } from 'node:crypto'
import { KeyEncryptionKey } from '@tidemark/crypto'
import { Redacted, silentLogger, systemClock } from '@tidemark/kernel'
import { type ConnectionTarget } from '@tidemark/postgres'
import {
  type OpenedKeys,
  type RepositoryPlace,
  type RepositorySet,
  type SealingSettings,
  initRepositorySet,
  openKeys,
} from '@tidemark/repository'
import { openObjectStore } from '@tidemark/storage'
import type { TestPostgres } from '@tidemark/testkit'

export const noDeadline = new AbortController().signal

export interface TestSet {
  readonly kek: KeyEncryptionKey
  readonly set: RepositorySet
  readonly keys: OpenedKeys
}

export async function filePlace(name: string, directory: string, required = true): Promise<RepositoryPlace> {
  return { name, required, store: await openObjectStore(`file://${directory}`, { create: true }) }
}

export async function newTestSet(places: readonly RepositoryPlace[]): Promise<TestSet> {
  const kek = new KeyEncryptionKey(randomBytes(32))
  const { set } = await initRepositorySet(places, [kek], undefined, {
    clock: systemClock,
    logger: silentLogger,
    signal: noDeadline,
  })
  return { kek, set, keys: await openKeys(set, [kek], noDeadline) }
}

export const sealing: SealingSettings = {
  suite: 'aes-256-cbc-hmac-sha-256',
  compressionLevel: 1,
  threads: 2,
  uploads: 2,
  packBytes: 8 * 1_048_576,
}

export function targetOf(server: TestPostgres): ConnectionTarget {
  const { host, port, user, password } = server
  return { host, port, user, password: new Redacted(password), applicationName: 'tidemark_test' }
}
