import { OperationalError, type Problem, formatBytes } from '@tidemark/kernel'

/** Somebody else's backup of this cluster is running; two at once only slow the source. */
export class ClusterBusyError extends OperationalError {
  override readonly code = 'CLUSTER_BUSY'
  override readonly retry = 'backoff'
  constructor(cluster: string) {
    super(`another base backup of cluster ${cluster} is running`, {
      hint: "wait for it to end; SELECT pid FROM pg_locks WHERE locktype = 'advisory' shows who holds the lock",
      facts: { cluster },
    })
  }
}

/** The program that was to run before the backup did not succeed, so there is none. */
export class HookFailedError extends OperationalError {
  override readonly code = 'HOOK_FAILED'
  override readonly retry = 'after-operator'
  constructor(command: string, problem: string) {
    super(`the hook before the backup failed: ${command}: ${problem}`, {
      hint: "see its output in the worker's log, run it by hand as the worker's user, or take it out of hooks.before",
      facts: { command, problem },
    })
  }
}

/** Committed, but the server reported page checksum failures in it: no restorable point unless asked for by name. */
export class BackupDamagedError extends OperationalError {
  override readonly code = 'BACKUP_DAMAGED'
  override readonly retry = 'never'
  constructor(backupId: string, damage: readonly string[]) {
    super(`backup ${backupId} holds pages with wrong checksums, as the source had them`, {
      hint: 'restore the last intact backup; use this one only to save what can be saved, with --allow-damaged',
      facts: { backupId, damage: damage.slice(0, 20) },
    })
  }
}

export class TargetNotEmptyError extends OperationalError {
  override readonly code = 'TARGET_NOT_EMPTY'
  override readonly retry = 'after-operator'
  constructor(directory: string, found: string) {
    super(`restore target ${directory} is not an empty directory: it holds ${found}`, {
      hint: 'name a new or empty directory; Tidemark never restores over anything',
      facts: { directory, found },
    })
  }
}

export class TargetUnusableError extends OperationalError {
  override readonly code = 'TARGET_UNUSABLE'
  override readonly retry = 'after-operator'
  constructor(directory: string, why: string, hint: string, cause?: unknown) {
    super(`restore target ${directory} cannot be used: ${why}`, { hint, facts: { directory }, cause })
  }
}

export class DiskSpaceError extends OperationalError {
  override readonly code = 'TARGET_DISK_SPACE'
  override readonly retry = 'after-operator'
  constructor(directory: string, needBytes: number, freeBytes: number) {
    super(`the disk of ${directory} has ${formatBytes(freeBytes)} free, the restore needs ${formatBytes(needBytes)}`, {
      hint: 'make room, or restore to another disk; nothing was written',
      facts: { directory, needBytes, freeBytes },
    })
  }
}

/** Writing into the target failed in the middle. */
export class TargetWriteError extends OperationalError {
  override readonly code = 'TARGET_WRITE_FAILED'
  override readonly retry = 'after-operator'
  constructor(path: string, cause: unknown) {
    const system = (cause as { code?: string } | null)?.code ?? 'unknown'
    super(`writing ${path} failed: ${system}`, {
      hint:
        system === 'ENOSPC'
          ? 'the disk filled up: make room and restore again'
          : 'check the disk, its mount options and the rights of the target directory',
      facts: { path, system },
      cause,
    })
  }
}

/** The backup has something that this release cannot put back. */
export class RestoreUnsupportedError extends OperationalError {
  override readonly code = 'RESTORE_UNSUPPORTED'
  override readonly retry = 'never'
  constructor(backupId: string, what: string, hint: string) {
    super(`backup ${backupId} cannot be restored by this release: it has ${what}`, { hint, facts: { backupId, what } })
  }
}

/** A verification found something. What exactly, per repository, is in the facts. */
export class VerifyFailedError extends OperationalError {
  override readonly code = 'VERIFY_FAILED'
  override readonly retry = 'never'
  constructor(
    backupId: string,
    repositories: readonly { readonly name: string; readonly ok: boolean; readonly problems: readonly string[] }[],
  ) {
    const bad = repositories.filter(({ ok }) => !ok)
    const [first] = bad.flatMap(({ problems }) => problems)
    super(
      `backup ${backupId} is damaged in ${bad.map(({ name }) => name).join(', ')}: ${first ?? 'see the problems'}`,
      {
        hint: 'take a new backup now; this one can still be restored from a repository of the set that is not named here',
        facts: { backupId, repositories },
      },
    )
  }
}

/** A name that the configuration does not have. */
export class UnknownNameError extends OperationalError {
  override readonly code: 'UNKNOWN_CLUSTER' | 'UNKNOWN_REPOSITORY'
  override readonly retry = 'after-operator'
  constructor(kind: 'cluster' | 'repository', name: string, known: readonly string[]) {
    super(`${kind} ${name} is not in the configuration`, {
      hint: known.length === 0 ? `add it under ${kind}s: in tidemark.yaml` : `configured are: ${known.join(', ')}`,
      facts: { name, known },
    })
    this.code = kind === 'cluster' ? 'UNKNOWN_CLUSTER' : 'UNKNOWN_REPOSITORY'
  }
}

/** The newest backup cannot be told, because a repository that may hold it does not answer. */
export class LatestUncertainError extends OperationalError {
  override readonly code = 'LATEST_UNCERTAIN'
  override readonly retry = 'after-operator'
  constructor(
    unavailable: readonly {
      readonly name: string
      readonly problem: { readonly code: string; readonly message: string }
    }[],
  ) {
    super(
      `which backup is the latest cannot be told: ${unavailable.map(({ name, problem }) => `${name} is not available (${problem.message})`).join('; ')}`,
      {
        hint: 'mend that repository; or take the newest of another one with --repository <name>; or name the backup by its id (tidemark backups list)',
        facts: { unavailable },
      },
    )
  }
}

/** A file repository lies on the disk of one host, and this is another. */
export class RepositoryElsewhereError extends OperationalError {
  override readonly code = 'REPOSITORY_ELSEWHERE'
  override readonly retry = 'after-operator'
  constructor(repository: string, owner: string, here: string) {
    super(`file repository ${repository} lies on host ${owner}; this is ${here}`, {
      hint: `run this on ${owner}, or declare the repository \`shared: true\` if every host sees the same files`,
      facts: { repository, owner, here },
    })
  }
}

/** Some of the backups that were to be copied were not; those that were are named in the facts. */
export class CopyIncompleteError extends OperationalError {
  override readonly code = 'COPY_INCOMPLETE'
  override readonly retry: 'never' | 'backoff' | 'after-operator'
  constructor(
    to: string,
    failed: readonly { readonly backupId: string; readonly problem: Problem }[],
    copied: readonly string[],
  ) {
    const [first] = failed
    super(`${failed.length} backups could not be copied to ${to}: ${first?.backupId}: ${first?.problem.message}`, {
      hint: first?.problem.hint ?? 'see the problems',
      facts: { to, copied: copied.slice(0, 100), failed: failed.slice(0, 100) },
    })
    this.retry = failed.some(({ problem }) => problem.retry === 'backoff') ? 'backoff' : 'after-operator'
  }
}
