/**
 * What a restored directory is told about how to recover, and how not to hurt its source.
 *
 * Everything goes to the end of postgresql.auto.conf, which the server reads last. Settings of an earlier recovery that came
 * with the backup are taken out of it. A recovery target in any other file cannot be overridden (the server counts every one it
 * reads, even an empty one, and refuses two), so those lines are taken out of every *.conf file of the directory.
 */
import type { CommitRecord } from '@tidemark/repository'
import { appendSettings, parseServerConfig, recoverySettings, removeSettings } from '@tidemark/postgres'

export type RestoreProfile = 'clone' | 'production'

/** Where the backup's own WAL waits for restore_command, relative to the data directory. */
export const WAL_FOLDER = 'tidemark_wal'
export const CLONE_HBA = 'tidemark_clone_hba.conf'

const RECOVERY_TARGETS = [
  'recovery_target',
  'recovery_target_time',
  'recovery_target_xid',
  'recovery_target_name',
  'recovery_target_lsn',
] as const

/** Preload libraries that do nothing to anybody outside; all ship with PostgreSQL. */
const HARMLESS_LIBRARIES = new Set([
  'pg_stat_statements',
  'auto_explain',
  'pg_prewarm',
  'passwordcheck',
  'auth_delay',
  'basic_archive',
])

type Setting = readonly [name: string, value: string]

/** Recovery to the end of the backup itself, then a new timeline. */
function ownRecoverySettings(directory: string): Setting[] {
  const folder = `${directory}/${WAL_FOLDER}`
  return [
    ['recovery_target_inclusive', 'on'],
    ['recovery_target_timeline', 'current'],
    ['recovery_target_action', 'promote'],
    ['archive_cleanup_command', ''],
    ['recovery_min_apply_delay', '0'],
    // Only this backup's segments are there, all of them: absence means the end, never an outage.
    ['restore_command', `cp ${commandWord(folder)}/%f "%p"`],
    ['recovery_end_command', `rm -rf ${commandWord(folder)}`],
    ['recovery_target', 'immediate'],
  ]
}

/** The preload libraries that the restored server will have. */
export function keptLibraries(profile: RestoreProfile, { server }: CommitRecord): string[] {
  return server.preloadLibraries.filter((library) => profile === 'production' || HARMLESS_LIBRARIES.has(library))
}

/**
 * The clone profile: a copy that archives nowhere, replicates from nobody, and is reached through its own socket only.
 * The minima of pg_control stay as they came with the backup.
 */
function cloneSettings(directory: string, record: CommitRecord): Setting[] {
  const kept = keptLibraries('clone', record)
  return [
    ['archive_mode', 'off'],
    ['archive_command', ''],
    ['archive_library', ''],
    ['max_logical_replication_workers', '0'],
    ['primary_conninfo', ''],
    ['primary_slot_name', ''],
    ['synchronous_standby_names', ''],
    ['shared_preload_libraries', kept.join(', ')],
    ['session_preload_libraries', ''],
    ['local_preload_libraries', ''],
    ['listen_addresses', ''],
    ['unix_socket_directories', socketFolder(directory)],
    ['unix_socket_permissions', '0700'],
    ['hba_file', `${directory}/${CLONE_HBA}`],
    ['port', '5432'],
    ['ssl', 'off'],
    // Its messages go to where it was started, never into the source's files.
    ['logging_collector', 'off'],
    ['external_pid_file', ''],
  ]
}

/** A list of one: double quotes keep a comma from splitting it (SplitDirectoriesString, src/backend/utils/adt/varlena.c). */
function socketFolder(directory: string): string {
  return /[,"]/.test(directory) ? `"${directory.replaceAll('"', '""')}"` : directory
}

/** Local connections only; the socket lies in the 0700 data directory, so only its owner and root reach it. */
export const CLONE_HBA_TEXT =
  '# Written by the restore: this is a copy, reached through its own socket only.\nlocal all all trust\n'

/** The new postgresql.auto.conf. @param present the one that came with the backup. */
export function restoredAutoConf(
  present: string,
  directory: string,
  profile: RestoreProfile,
  record: CommitRecord,
): string {
  const ours = Object.fromEntries([
    // Without these at least, the server refuses to recover; on the source they may have stood outside the data directory.
    ...Object.entries(record.server.minimumSettings),
    ...ownRecoverySettings(directory),
    ...(profile === 'clone' ? cloneSettings(directory, record) : []),
  ])
  const cleaned = removeSettings(present, [...recoverySettings, ...Object.keys(ours)])
  return appendSettings(cleaned, `restored from backup ${record.backupId} as ${profile}`, ours)
}

/** `data_directory` would make a server that is started on the copy open the source's files instead. */
const NEVER_KEPT = [...RECOVERY_TARGETS, 'data_directory']

/** A configuration file without lines that cannot be overridden, or undefined where it has none. */
export function withoutUnsafeLines(text: string): string | undefined {
  const present = parseServerConfig(text)
  return NEVER_KEPT.some((name) => present.has(name)) ? removeSettings(text, NEVER_KEPT) : undefined
}

/** For a source that keeps its configuration outside of the data directory: what the server cannot start without. */
export const STAND_IN_CONFIGURATION = {
  'postgresql.conf':
    '# The source kept its configuration outside of the data directory; postgresql.auto.conf has what this copy needs.\n',
  'pg_hba.conf':
    '# The source kept its own file outside of the data directory: write this one before others may connect.\nlocal all all peer\n',
  'pg_ident.conf': '',
} as const

/** One word for sh. Double quotes would still expand; single quotes do not. */
export function shellWord(path: string): string {
  return `'${path.replaceAll("'", `'\\''`)}'`
}

/** The same inside of restore_command and its kind, where the server replaces what follows a percent sign. */
function commandWord(path: string): string {
  return shellWord(path).replaceAll('%', '%%')
}
