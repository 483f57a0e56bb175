import { OperationalError } from '@tidemark/kernel'

/** The store answers, but there is no tidemark.json: a wrong path, or never initialised. */
export class NotARepositoryError extends OperationalError {
  override readonly code = 'REPOSITORY_NOT_INITIALISED'
  override readonly retry = 'after-operator'
  constructor(url: string) {
    super(`${url} is not a Tidemark repository: it has no tidemark.json`, {
      hint: 'check the URL; `tidemark repo init` makes a new repository there',
      facts: { url },
    })
  }
}

/** `repo init` where something is already. */
export class RepositoryExistsError extends OperationalError {
  override readonly code = 'REPOSITORY_EXISTS'
  override readonly retry = 'never'
  constructor(url: string, found: string) {
    super(`${url} is not empty: it holds ${found}`, {
      hint: found.startsWith('keys/')
        ? 'a `repo init` that was interrupted leaves keys/ without tidemark.json, and nothing was ever sealed under them: remove them by hand and run it again, or choose an empty prefix'
        : 'use it as it is (`tidemark repo info`), or choose an empty prefix; nothing is ever overwritten',
      facts: { url, found },
    })
  }
}

/** The repositories named together do not belong together. */
export class SetMismatchError extends OperationalError {
  override readonly code = 'REPOSITORY_SET_MISMATCH'
  override readonly retry = 'after-operator'
  constructor(sets: readonly { repository: string; setId: string; publicKey: string }[], hint?: string) {
    super('the configured repositories belong to different sets, or to another key than the pinned one', {
      hint:
        hint ??
        'compare the set ids and public keys with `tidemark repo info`; a wrong bucket or prefix is the usual cause',
      facts: { sets },
    })
  }
}

/** Two configured names lead to one place: it would count as two copies. */
export class RepositoryTwiceError extends OperationalError {
  override readonly code = 'REPOSITORY_TWICE'
  override readonly retry = 'after-operator'
  constructor(names: readonly string[]) {
    super(`repositories ${names.join(', ')} are not all different places`, {
      hint: 'two of them have one repository id: check their URLs',
      facts: { names },
    })
  }
}

/** Written by a version of Tidemark that this one does not read. */
export class FormatVersionError extends OperationalError {
  override readonly code = 'REPOSITORY_VERSION'
  override readonly retry = 'never'
  /** @param feature of a version that is read otherwise. */
  constructor(what: string, version: unknown, readable: number, feature?: string) {
    const found = feature === undefined ? `has format version ${String(version)}` : `needs the feature ${feature}`
    super(`${what} ${found}; this program reads version ${readable}`, {
      hint: 'use the Tidemark release that wrote it, or a newer one that says it reads this version',
      facts: { version, readable, feature },
    })
  }
}

/** An object is there, but is not what its name promises. */
export class DocumentDamagedError extends OperationalError {
  override readonly code = 'DOCUMENT_DAMAGED'
  override readonly retry = 'never'
  constructor(what: string, why: string, cause?: unknown) {
    super(`${what} is damaged: ${why}`, {
      hint: 'read it from another repository of the set; verify the backup to see what else is damaged',
      cause,
    })
  }
}

export class BackupNotFoundError extends OperationalError {
  override readonly code = 'BACKUP_NOT_FOUND'
  override readonly retry = 'never'
  constructor(wanted: string, cluster: string | undefined) {
    super(`there is no backup ${wanted}${cluster === undefined ? '' : ` of cluster ${cluster}`} in this repository`, {
      hint: 'list what is there with `tidemark backups list`; a backup is listed once its commit record is stored',
      facts: { wanted, cluster },
    })
  }
}

export class BackupAmbiguousError extends OperationalError {
  override readonly code = 'BACKUP_AMBIGUOUS'
  override readonly retry = 'never'
  constructor(wanted: string, matches: readonly string[]) {
    super(`${wanted} stands for more than one backup`, {
      hint: 'give more digits of the id',
      facts: { wanted, matches },
    })
  }
}

/** The newest backup cannot be told: a repository that may hold it does not answer, or what is known contradicts itself. */
export class LatestUncertainError extends OperationalError {
  override readonly code = 'LATEST_UNCERTAIN'
  override readonly retry = 'after-operator'

  private constructor(why: string, hint: string, facts: Readonly<Record<string, unknown>>) {
    super(`which backup is the latest cannot be told: ${why}`, { hint, facts })
  }

  static unanswered(
    unavailable: readonly {
      readonly name: string
      readonly problem: { readonly code: string; readonly message: string }
    }[],
  ): LatestUncertainError {
    return new LatestUncertainError(
      unavailable.map(({ name, problem }) => `${name} is not available (${problem.message})`).join('; '),
      'mend that repository; or take the newest of another one with --repository <name>; or name the backup by its id (tidemark backups list)',
      { unavailable },
    )
  }

  /** @param byLsn later by timeline and LSN. @param byClocks later by the worker's clock and by the store's. */
  static contrary(byLsn: LatestOrder, byClocks: LatestOrder): LatestUncertainError {
    const place = ({ backupId, timeline, stopLsn, stoppedAt }: LatestOrder) => ({
      backupId,
      timeline,
      stopLsn,
      stoppedAt,
    })
    return new LatestUncertainError(
      `${byLsn.backupId} is later by timeline and LSN (${byLsn.timeline}, ${byLsn.stopLsn}), and ${byClocks.backupId} by the clocks (${byClocks.stoppedAt})`,
      'an older backup was restored and its server has come to a timeline that was used before, or clocks were set: see which of the two belongs to the server that runs, and name it by its id',
      { byLsn: place(byLsn), byClocks: place(byClocks) },
    )
  }
}

interface LatestOrder {
  readonly backupId: string
  readonly timeline: number
  readonly stopLsn: string
  readonly stoppedAt: string
}

/** What lies in the backup's folder is not what its pack table says. */
export class FolderMismatchError extends OperationalError {
  override readonly code = 'BACKUP_FOLDER_MISMATCH'
  override readonly retry = 'backoff'
  constructor(repository: string, missing: readonly string[], unexpected: readonly string[], hint?: string) {
    super(`the backup's objects in repository ${repository} are not those that were written`, {
      hint:
        hint ??
        'something else deletes or writes there: check lifecycle rules and other users of the bucket; no record was written',
      facts: { repository, missing: missing.slice(0, 20), unexpected: unexpected.slice(0, 20) },
    })
  }
}

/** Read back after the put, an object was not what was put. */
export class StoredOtherwiseError extends OperationalError {
  override readonly code = 'STORED_OTHERWISE'
  override readonly retry = 'backoff'
  constructor(repository: string, name: string) {
    super(`repository ${repository} holds other bytes for ${name} than it was given`, {
      hint: 'suspect its disk, memory or network path; no record was written',
      facts: { repository, name },
    })
  }
}

/** The attempt did not renew its begin object in time, so its objects may have been swept. */
export class LeaseLostError extends OperationalError {
  override readonly code = 'LEASE_LOST'
  override readonly retry = 'backoff'
  constructor(backupId: string, ageMs: number) {
    const silent = Number.isFinite(ageMs) ? `for ${Math.round(ageMs / 60_000)} minutes` : 'until it was swept'
    super(`attempt ${backupId} could not renew its begin object ${silent}`, {
      hint: 'the host was suspended, or the repository was out of reach for long: take a new backup, or copy again',
      facts: { backupId, ...(Number.isFinite(ageMs) ? { ageMs } : {}) },
    })
  }
}

/** The run waited for this repository alone, for longer than it may. */
export class RepositoryTooSlowError extends OperationalError {
  override readonly code = 'REPOSITORY_TOO_SLOW'
  override readonly retry = 'backoff'
  constructor(repository: string, waitedMs: number) {
    super(`the run waited ${Math.round(waitedMs / 60_000)} minutes for repository ${repository} alone`, {
      hint: 'see why it is slow; the backup is copied there later',
      facts: { repository, waitedMs },
    })
  }
}

/** A required repository could not take what has to be in it. */
export class RequiredRepositoryError extends OperationalError {
  override readonly code = 'REQUIRED_REPOSITORY_FAILED'
  override readonly retry: 'never' | 'backoff' | 'after-operator'
  constructor(repository: string, cause: unknown) {
    const said = cause instanceof Error ? cause.message : String(cause)
    super(`required repository ${repository} failed: ${said}`, {
      hint: cause instanceof OperationalError ? cause.hint : 'see the cause; no backup was recorded',
      facts: { repository, ...(cause instanceof OperationalError ? { causeCode: cause.code, ...cause.facts } : {}) },
      cause,
    })
    this.retry = cause instanceof OperationalError ? cause.retry : 'never'
  }
}

/** One name, two contents: a second primary archives here, or one copy is damaged. */
export class WalSegmentConflictError extends OperationalError {
  override readonly code = 'WAL_SEGMENT_CONFLICT'
  override readonly retry = 'never'
  constructor(segment: string, names: readonly string[]) {
    super(`WAL segment ${segment} is archived with different contents`, {
      hint: 'check that exactly one primary archives to this repository; both contents were kept as evidence',
      facts: { segment, names },
    })
  }
}

/** A part of a backup that its record promises is not there. */
export class BackupIncompleteError extends OperationalError {
  override readonly code = 'BACKUP_INCOMPLETE'
  override readonly retry = 'never'
  constructor(backupId: string, missing: string, cause?: unknown) {
    super(`backup ${backupId} lacks ${missing}`, {
      hint: 'read it from another repository of the set, or restore another backup',
      facts: { backupId, missing },
      cause,
    })
  }
}
