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
  constructor(
    directory: string,
    found: string,
    hint = 'name a new or empty directory; Tidemark never restores over anything',
  ) {
    super(`restore target ${directory} is not an empty directory: it holds ${found}`, {
      hint,
      facts: { directory, found },
    })
  }

  static ofRestore(directory: string, backupId: string): TargetNotEmptyError {
    return new TargetNotEmptyError(
      directory,
      `an unfinished restore of backup ${backupId}`,
      `take it up again with: tidemark restore run ${backupId} --target ${directory} --resume; or remove the directory`,
    )
  }
}

/** A server runs on the directory, or another restore is at work in it. */
export class TargetInUseError extends OperationalError {
  override readonly code = 'TARGET_IN_USE'
  override readonly retry = 'after-operator'
  constructor(directory: string, pid: number | undefined) {
    super(
      `restore target ${directory} is in use ${pid === undefined ? 'by processes of a server that has died' : `by process ${pid}`}`,
      {
        hint: 'stop the server (pg_ctl stop) or wait for the other restore; a postmaster.pid that names a process of something else may be removed',
        facts: { directory, pid },
      },
    )
  }
}

/** There is no work of an earlier restore that this one could go on with. */
export class TargetNotResumableError extends OperationalError {
  override readonly code = 'TARGET_NOT_RESUMABLE'
  override readonly retry = 'after-operator'
  constructor(directory: string, mode: 'resume' | 'delta', why: string) {
    super(`nothing to ${mode === 'resume' ? 'resume' : 'restore a delta into'} in ${directory}: ${why}`, {
      hint:
        mode === 'resume'
          ? 'a restore that was broken off leaves its marker; a finished one takes --delta; anything else, a new directory'
          : 'only a directory that a restore of the same database system finished takes a delta; one that was broken off, --resume',
      facts: { directory, mode, why },
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

/** A tablespace would come to lie where something is that may be somebody else's; nothing was written. */
export class TablespaceLocationError extends OperationalError {
  override readonly code: 'TABLESPACE_LOCATION_EXISTS' | 'TABLESPACE_UNKNOWN'
  override readonly retry = 'after-operator'
  private constructor(
    code: 'TABLESPACE_LOCATION_EXISTS' | 'TABLESPACE_UNKNOWN',
    message: string,
    hint: string,
    facts: Readonly<Record<string, unknown>>,
  ) {
    super(message, { hint, facts })
    this.code = code
  }

  static exists(oid: string, location: string): TablespaceLocationError {
    return new TablespaceLocationError(
      'TABLESPACE_LOCATION_EXISTS',
      `tablespace ${oid} lies at ${location}, which exists on this host: it may be the source's own`,
      `put it elsewhere with --tablespace-mapping ${location}=/new/path, or all of them with --tablespace-root`,
      { oid, location },
    )
  }

  static replayed(oid: string, location: string): TablespaceLocationError {
    return new TablespaceLocationError(
      'TABLESPACE_LOCATION_EXISTS',
      `tablespace ${oid} was made at ${location} while the backup ran, and that exists on this host: recovery would adopt it`,
      'its path stands in WAL and cannot be mapped: restore on another host, or from a backup that was taken later',
      { oid, location },
    )
  }

  static unknown(oid: string): TablespaceLocationError {
    return new TablespaceLocationError(
      'TABLESPACE_UNKNOWN',
      `where tablespace ${oid} lies is not known: recovery may make it at a path that somebody uses`,
      'restore another backup; this one was taken while the tablespace was made, by a release that did not note where',
      { oid },
    )
  }
}

/** A directory that was named for a tablespace cannot be used, or the naming makes no sense. */
export class TablespaceMappingError extends OperationalError {
  override readonly code = 'TABLESPACE_MAPPING_UNUSABLE'
  override readonly retry = 'after-operator'
  constructor(path: string, why: string) {
    super(`${path} cannot take a tablespace: ${why}`, {
      hint: 'name a new or empty directory outside of every data directory; `tidemark restore plan` lists the tablespaces',
      facts: { path, why },
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

/** Some folders of debris could not be deleted; everything else was swept. */
export class SweepIncompleteError extends OperationalError {
  override readonly code = 'SWEEP_INCOMPLETE'
  override readonly retry = 'after-operator'
  constructor(
    repository: string,
    failed: readonly { readonly backupId: string; readonly problem: Problem }[],
    swept: number,
  ) {
    const [first] = failed
    super(
      `${failed.length} folders of ${repository} could not be swept: ${first?.backupId}: ${first?.problem.message}`,
      {
        hint: first?.problem.hint ?? 'see the problems',
        facts: { repository, swept, failed: failed.slice(0, 100) },
      },
    )
  }
}

/** Nothing would protect the copy's objects from a sweep: the source has no begin object to put first. */
export class CopyUnprotectedError extends OperationalError {
  override readonly code = 'COPY_UNPROTECTED'
  override readonly retry = 'after-operator'
  constructor(backupId: string, from: string, to: string, folders: readonly string[]) {
    super(
      `backup ${backupId} is not copied to ${to}: what an earlier copy left there may be swept at any moment, and ${from} has no begin object of it to keep a sweep off`,
      {
        hint: 'run `tidemark repo sweep` on the target until it has nothing left of this backup (it takes what is older than 24 hours, and forgets it a day later), then copy again; or copy from a repository that has its begin object',
        facts: { backupId, from, to, folders: folders.slice(0, 20) },
      },
    )
  }
}

/** Without a begin object only their age protects a copy's objects, and that is nearly over. */
export class CopyTooLongError extends OperationalError {
  override readonly code = 'COPY_TOO_LONG'
  override readonly retry = 'backoff'
  constructor(backupId: string, to: string, tookMs: number, limitMs: number) {
    const [took, limit] = [tookMs, limitMs].map((ms) => Math.round(ms / 3_600_000))
    super(
      `copying backup ${backupId} to ${to} took ${took} hours; without a begin object in the source it may take ${limit}`,
      {
        hint: 'copy again: what is there is not sent again. If it never comes to an end, copy from a repository that has its begin object',
        facts: { backupId, to, tookMs, limitMs },
      },
    )
  }
}

/** A copy that no keyring beside it opens is none. */
export class KeyringMissingError extends OperationalError {
  override readonly code = 'KEYRING_MISSING'
  override readonly retry = 'after-operator'
  constructor(backupId: string, to: string, dataKeys: readonly string[]) {
    super(`no keyring in ${to} has the data keys of backup ${backupId}, and no repository that was asked has it`, {
      hint: 'see which repository of the set has its keyrings whole (objects under keys/), and copy from there; an object there that was changed does not count',
      facts: { backupId, to, dataKeys },
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
    // One that may pass is worth the others' try: what is there is not sent again.
    const kinds = new Set(failed.map(({ problem }) => problem.retry))
    this.retry = kinds.has('backoff') ? 'backoff' : kinds.has('after-operator') ? 'after-operator' : 'never'
  }
}
