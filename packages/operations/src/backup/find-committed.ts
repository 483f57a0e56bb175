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
 */
export async function findCommitted(
  set: RepositorySet,
  request: { readonly cluster: string; readonly operationId: string; readonly requestedAt: Date },
  signal: AbortSignal,
): Promise<Committed | undefined> {
  const since = compactTime(new Date(request.requestedAt.getTime() - CLOCK_SLACK_MS))
  const outcomes: { name: string; outcome: 'stored' | 'dropped' }[] = []
  let record: Committed['record'] | undefined
  for (const repository of set.repositories) {
    const here = await committedIn(repository, set.publicKey, request, since, signal).catch((error: unknown) => {
      // One that is not required may miss the run; it must not stop it.
      if (error instanceof OperationalError && !repository.required && !signal.aborted) return undefined
      throw error
    })
    if (here === undefined && repository.required) return undefined
    outcomes.push({ name: repository.name, outcome: here === undefined ? 'dropped' : 'stored' })
    record ??= here
  }
  return record === undefined ? undefined : { record, repositories: outcomes }
}

async function committedIn(
  repository: Repository,
  publicKey: string,
  request: { readonly cluster: string; readonly operationId: string },
  since: string,
  signal: AbortSignal,
): Promise<Committed['record'] | undefined> {
  for await (const at of listRecordNames(repository, request.cluster, signal, since)) {
    const candidate = await readRecord(repository, publicKey, at, signal).catch((error: unknown) => {
      if (error instanceof OperationalError && error.retry === 'never') return undefined
      throw error
    })
    if (candidate?.operationId === request.operationId) return candidate
  }
  return undefined
}
