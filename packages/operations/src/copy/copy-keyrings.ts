/**
 * The keyrings that a copy needs in its target, copied without a key: ids of data keys are signed plain text, the keys in them stay wrapped.
 *
 * A record that no keyring beside it opens is a copy in name only: who has lost all other repositories has lost the backup.
 */
import { createHash } from 'node:crypto'
import { dataKeyIdsOf } from '@tidemark/crypto'
import { type Logger, OperationalError, throwIfAborted } from '@tidemark/kernel'
import {
  type CommitRecord,
  DocumentDamagedError,
  type Repository,
  isOwnKeyring,
  putProven,
  readBack,
  readKeyrings,
} from '@tidemark/repository'
import { KeyringMissingError } from '../errors.ts'

interface Deps {
  readonly publicKey: string
  readonly logger: Logger
  readonly signal: AbortSignal
}

/**
 * Verbatim, and only those that are signed under their own number. What has such a name in the target and is not that is no keyring to any
 * reader, and is put right.
 *
 * @param from the source, whose keyrings are all copied; then others of the set, which are asked only for what is still needed.
 * @throws {DocumentDamagedError} the target has another one of this set under a name of the source's: both count, so neither may go.
 * @throws {KeyringMissingError} none of them has a keyring that the record needs.
 */
export async function copyKeyrings(
  {
    from,
    to,
    record,
  }: { readonly from: readonly Repository[]; readonly to: Repository; readonly record: CommitRecord },
  deps: Deps,
): Promise<{ objects: number; bytes: number }> {
  const { publicKey, logger, signal } = deps
  let [objects, bytes] = [0, 0]
  const there = new Map((await readKeyrings(to, signal)).map(({ name, bytes }) => [name, bytes]))
  for (const [i, repository] of from.entries()) {
    throwIfAborted(signal, 'copying keyrings')
    if (i > 0 && missingKeys(record, there, publicKey).length === 0) break
    const found = await readKeyrings(repository, signal).catch((error: unknown) => {
      if (i === 0 || signal.aborted || !(error instanceof OperationalError)) throw error
      logger.warn({ repository: repository.name, code: error.code, reason: error.message }, 'keyrings not read')
      return []
    })
    for (const { name, bytes: right } of found) {
      const present = there.get(name)
      if (present?.equals(right) === true) continue
      if (!isOwnKeyring(name, right, publicKey)) {
        logger.warn({ repository: repository.name, object: name }, 'no keyring of this set: not copied')
        continue
      }
      if (present !== undefined) {
        if (isOwnKeyring(name, present, publicKey))
          throw new DocumentDamagedError(`${to.name} ${name}`, `${repository.name} has another keyring of this name`)
        logger.warn({ repository: to.name, object: name }, 'no keyring of this set has the name of one: replaced')
      }
      const sha256 = createHash('sha256').update(right).digest('hex')
      if (present === undefined) {
        await to.store.putIfAbsent(name, right, { signal, sha256 })
        await readBack(to, name, right.length, sha256, signal)
      } else await putProven(to, name, right, sha256, signal)
      there.set(name, right)
      objects += 1
      bytes += right.length
    }
  }
  refuseMissing(to, record, there, publicKey)
  return { objects, bytes }
}

/** That the target's own keyrings, as they lie there, have every data key of the record. @throws {KeyringMissingError} */
export async function requireKeyrings(
  to: Repository,
  record: CommitRecord,
  { publicKey, signal }: Deps,
): Promise<void> {
  const there = new Map((await readKeyrings(to, signal)).map(({ name, bytes }) => [name, bytes]))
  refuseMissing(to, record, there, publicKey)
}

function refuseMissing(
  to: Repository,
  record: CommitRecord,
  keyrings: ReadonlyMap<string, Buffer>,
  publicKey: string,
): void {
  const missing = missingKeys(record, keyrings, publicKey)
  if (missing.length > 0) throw new KeyringMissingError(record.backupId, to.name, missing)
}

function missingKeys(record: CommitRecord, keyrings: ReadonlyMap<string, Buffer>, publicKey: string): string[] {
  const ids = new Set<string>()
  for (const [name, bytes] of keyrings)
    if (isOwnKeyring(name, bytes, publicKey))
      for (const id of dataKeyIdsOf(name, bytes, record.setId, publicKey)) ids.add(id)
  return record.dataKeys.filter((id) => !ids.has(id))
}
