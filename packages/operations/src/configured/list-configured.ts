import {
  type ListedBackup,
  type RecordName,
  listRecordNames,
  newestRecordNames,
  readListed,
} from '@tidemark/repository'
import type { ConfiguredDeps, ConfiguredSet } from './open-configured-set.ts'

export interface SetBackup {
  readonly backup: ListedBackup
  /** Names of the repositories that hold it, with a record to be trusted. */
  readonly repositories: readonly string[]
  /** … with one that is not. */
  readonly untrusted: readonly string[]
  /** Repositories of its cluster that answered and do not hold it: a copy is owed. */
  readonly missing: readonly string[]
}

export interface ListRequest {
  readonly cluster: string | undefined
  readonly limit: number
  /** `next` of the page before. */
  readonly before: string | undefined
}

/** Backups of a set, newest first, each once, with where it lies. Costs listing pages, and one read a copy that is given. */
export async function listSet(
  { set }: ConfiguredSet,
  request: ListRequest,
  { config, signal }: ConfiguredDeps,
): Promise<{ backups: SetBackup[]; next: string | undefined }> {
  const { cluster, limit, before } = request
  const found = new Map<string, { at: RecordName; name: string }[]>()
  for (const repository of set.repositories) {
    // One more than asked for tells whether there is another page.
    for (const at of await newestRecordNames(repository, cluster, { limit: limit + 1, before }, signal)) {
      const key = `${at.stoppedAt}-${at.backupId}`
      found.set(key, [...(found.get(key) ?? []), { at, name: repository.name }])
    }
  }
  const keys = [...found.keys()].toSorted().toReversed()
  const backups: SetBackup[] = []
  for (const key of keys.slice(0, limit)) {
    const copies = found.get(key) ?? []
    let backup: ListedBackup | undefined
    const repositories = new Set<string>()
    const untrusted = new Set<string>()
    for (const { at, name } of copies) {
      const repository = set.repositories.find((one) => one.name === name)
      if (repository === undefined) continue
      const listed = await readListed(repository, set.publicKey, at, signal)
      if ('record' in listed) {
        repositories.add(name)
        backup = listed
      } else {
        untrusted.add(name)
        backup ??= listed
      }
    }
    if (backup === undefined) continue
    const expected = config.clusters[backup.cluster]?.repositories ?? set.repositories.map(({ name }) => name)
    const answered = set.repositories.map(({ name }) => name).filter((name) => expected.includes(name))
    const missing = answered.filter((name) => !repositories.has(name) && !untrusted.has(name))
    backups.push({ backup, repositories: [...repositories], untrusted: [...untrusted], missing })
  }
  return { backups, next: keys.length > limit ? keys[limit - 1] : undefined }
}

export interface RepositoryStatus {
  readonly name: string
  readonly required: boolean
  /** Backups with a record, whether or not it is to be trusted. */
  readonly held: number
  /** Backups that other repositories of the set hold, and that this one should. */
  readonly owed: number
  /** RFC 3339, as its name says. */
  readonly newest: string | undefined
}

/** What each repository holds of the set, by record names alone. */
export async function statusOfSet(
  { set }: ConfiguredSet,
  cluster: string | undefined,
  { config, signal }: ConfiguredDeps,
): Promise<{ repositories: RepositoryStatus[]; backups: number }> {
  /** Bit i: repository i holds it. */
  const holders = new Map<string, { readonly cluster: string; bits: number }>()
  for (const [i, repository] of set.repositories.entries()) {
    for await (const at of listRecordNames(repository, cluster, signal)) {
      const key = `${at.stoppedAt}-${at.backupId}`
      const known = holders.get(key)
      if (known === undefined) holders.set(key, { cluster: at.cluster, bits: 1 << i })
      else known.bits |= 1 << i
    }
  }
  const repositories = set.repositories.map(({ name, required }, i) => {
    let [held, owed] = [0, 0]
    let newest = ''
    for (const [key, { cluster: of, bits }] of holders) {
      if ((bits & (1 << i)) !== 0) {
        held += 1
        if (key > newest) newest = key
      } else if (config.clusters[of]?.repositories.includes(name) ?? true) owed += 1
    }
    return { name, required, held, owed, newest: newest === '' ? undefined : timeOf(newest) }
  })
  return { repositories, backups: holders.size }
}

function timeOf(key: string): string {
  return key.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)(\d{3})Z.*$/, '$1-$2-$3T$4:$5:$6.$7Z')
}
