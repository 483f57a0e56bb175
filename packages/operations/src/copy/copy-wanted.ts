/** Copies what is wanted, each from whichever repository can give it: one that fails keeps neither the others nor their verification. */
import { OperationalError, type Problem, RelayedError, problemOf, soonestToPass } from '@tidemark/kernel'
import { BackupNotFoundError, type RecordAt, type Repository, WalSegmentConflictError } from '@tidemark/repository'
import { CopyIncompleteError } from '../errors.ts'
import { type CopyDeps, type CopyOutcome, copyBackup } from './copy-backup.ts'

export interface WantedCopy {
  readonly at: RecordAt
  /** Where it is, in the order in which they are asked. */
  readonly holders: readonly Repository[]
}

export interface CopyPlan {
  readonly to: Repository
  readonly wanted: readonly WantedCopy[]
  /** The set's repositories that answered, but for the target. */
  readonly sources: readonly Repository[]
  /** Why others did not: any of them may hold what is wanted. */
  readonly unavailable: readonly { readonly problem: Problem }[]
}

/**
 * @param onDone called as soon as each is there, before the next is begun.
 * @throws {CopyIncompleteError} in the end: some were not copied; the others were.
 */
export async function copyWanted(
  { to, wanted, sources, unavailable }: CopyPlan,
  onDone: (outcome: CopyOutcome) => Promise<void>,
  deps: CopyDeps,
): Promise<CopyOutcome[]> {
  const failed: { backupId: string; problem: Problem }[] = []
  const done: CopyOutcome[] = []
  for (const { at, holders } of wanted) {
    const outcome = await copyFromAny({ at, holders, to, sources, unavailable }, deps)
    if (!('outcome' in outcome)) {
      failed.push({ backupId: at.backupId, problem: outcome })
      continue
    }
    done.push(outcome)
    await onDone(outcome)
  }
  if (failed.length === 0) return done
  const ids = done.map(({ backupId }) => backupId)
  throw new CopyIncompleteError(to.name, failed, ids)
}

/** @returns why not, where no source could give it: what passes soonest, those that do not answer included. */
async function copyFromAny(
  { at, holders, to, sources, unavailable }: WantedCopy & Omit<CopyPlan, 'wanted'>,
  deps: CopyDeps,
): Promise<CopyOutcome | Problem> {
  const errors: OperationalError[] = []
  for (const from of holders) {
    try {
      const others = sources.filter((source) => source !== from)
      return await copyBackup({ from, to, at, others }, deps)
    } catch (error) {
      if (deps.signal.aborted || !(error instanceof OperationalError)) throw error
      const { code, message } = error
      deps.logger.warn(
        { backupId: at.backupId, from: from.name, to: to.name, code, reason: message },
        'backup not copied',
      )
      // An incident in the target: another source would only add to it, and no outage is the reason.
      if (error instanceof WalSegmentConflictError) return problemOf(error)
      errors.push(error)
    }
  }
  if (errors.length === 0) errors.push(new BackupNotFoundError(at.backupId, at.cluster))
  return problemOf(soonestToPass([...errors, ...unavailable.map(({ problem }) => new RelayedError(problem))]))
}
