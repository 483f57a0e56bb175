import { OperationalError } from '@tidemark/kernel'
import {
  type Committed,
  type Repository,
  type RepositorySet,
  compactTime,
  listRecordNames,
  readRecord,
} from '@tidemark/repository'

/**
 * A worker whose clock runs behind stamps its record earlier than the request that led to it. A day covers every wrong time zone; what it
 * costs is a look at each record of that day.
 */
const CLOCK_SLACK_MS = 25 * 3_600_000

/**
 * The backup that an earlier attempt of the same operation committed before it died: found by its operation id among the records that
 * are younger than the request. A required repository that lacks it makes the operation go on: it has not succeeded everywhere.
 * A record that cannot be trusted is nobody's success, and no reason to take no backup.
 *
 * Two attempts may have committed, each in some of the repositories: the outcome is that of one backup, never of both together. Of several that
 * will do, it is the one that most repositories hold, then an intact one, then the later one.
 */
export async function findCommitted(
  set: RepositorySet,
  request: { readonly cluster: string; readonly operationId: string; readonly requestedAt: Date },
  signal: AbortSignal,
): Promise<Committed | undefined> {
  const since = compactTime(new Date(request.requestedAt.getTime() - CLOCK_SLACK_MS))
  const found = new Map<string, { readonly record: Committed['record']; readonly holders: Set<Repository> }>()
  for (const repository of set.repositories) {
    const records = await committedIn(repository, set.publicKey, request, since, signal).catch((error: unknown) => {
      // One that is not required may miss the run; it must not stop it.
      if (error instanceof OperationalError && !repository.required && !signal.aborted) return []
      throw error
    })
    if (records.length === 0 && repository.required) return undefined
    for (const record of records) {
      const known = found.get(record.backupId) ?? { record, holders: new Set() }
      known.holders.add(repository)
      found.set(record.backupId, known)
    }
  }
  const required = set.repositories.filter((repository) => repository.required)
  const [best] = [...found.values()]
    .filter(({ holders }) => required.every((repository) => holders.has(repository)))
    .toSorted(
      (a, b) =>
        b.holders.size - a.holders.size ||
        Number(b.record.verdict === 'intact') - Number(a.record.verdict === 'intact') ||
        Date.parse(b.record.stoppedAt) - Date.parse(a.record.stoppedAt),
    )
  if (best === undefined) return undefined
  const repositories = set.repositories.map((repository) => {
    const outcome = best.holders.has(repository) ? ('stored' as const) : ('dropped' as const)
    return { name: repository.name, outcome }
  })
  return { record: best.record, repositories }
}

async function committedIn(
  repository: Repository,
  publicKey: string,
  request: { readonly cluster: string; readonly operationId: string },
  since: string,
  signal: AbortSignal,
): Promise<Committed['record'][]> {
  const records: Committed['record'][] = []
  for await (const at of listRecordNames(repository, request.cluster, signal, since)) {
    const candidate = await readRecord(repository, publicKey, at, signal).catch((error: unknown) => {
      if (error instanceof OperationalError && error.retry === 'never') return undefined
      throw error
    })
    if (candidate?.operationId === request.operationId) records.push(candidate)
  }
  return records
}
