import { execFileSync } from 'node:child_process'
import type { CommitRecord } from '@tidemark/repository'
import { parseServerConfig } from '@tidemark/postgres'
import { expect, test } from 'vitest'
import { CLONE_HBA, WAL_FOLDER, restoredAutoConf, shellWord, withoutUnsafeLines } from './recovery-config.ts'

/** The two fields that recovery settings are made of. */
const record = {
  backupId: '0011223344556677',
  server: {
    minimumSettings: { max_connections: '200', max_worker_processes: '12' },
    preloadLibraries: ['pg_stat_statements', 'pg_cron', 'auto_explain', 'evil'],
  },
} as unknown as CommitRecord

const settingsOf = (
  present: string,
  directory = '/data',
  profile: 'clone' | 'production' = 'clone',
): Map<string, string> => parseServerConfig(restoredAutoConf(present, directory, profile, record))

const ODD_PATHS = [
  '/plain',
  "/it's",
  '/two words',
  '/100%',
  '/%f and %p',
  '/ümläut',
  '/"quoted"',
  '/$(id)`id`$HOME',
  '/back\\slash',
  '/a;b&c|d',
]

test.each(ODD_PATHS)('a shell reads %s as one word', (path) => {
  const word = shellWord(path)
  expect(execFileSync('sh', ['-c', `printf %s ${word}`], { encoding: 'utf8' })).toBe(path)
})

/** What a shell passes to cp or rm, a line each, after the server has put in its own. */
function wordsOf(command = ''): string {
  const own: Record<string, string> = { '%': '%', f: 'SEGMENT', p: 'pg_wal/X' }
  const expanded = command.replaceAll(/%(.)/g, (_all, what: string) => own[what] ?? '?')
  const script = `cp() { printf '%s\\n' "$@"; }; rm() { cp "$@"; }; ${expanded}`
  return execFileSync('sh', ['-c', script], { encoding: 'utf8' })
}

test.each(ODD_PATHS)(
  'the restore into %s fetches its WAL from there, and takes that folder away at the end',
  (path) => {
    const settings = settingsOf('', path)
    expect(wordsOf(settings.get('restore_command'))).toBe(`${path}/${WAL_FOLDER}/SEGMENT\npg_wal/X\n`)
    expect(wordsOf(settings.get('recovery_end_command'))).toBe(`-rf\n${path}/${WAL_FOLDER}\n`)
    expect(settings.get('hba_file')).toBe(`${path}/${CLONE_HBA}`)
  },
)

test('no setting of an earlier recovery is left', () => {
  const present = [
    "recovery_target_time = '2020-01-01'",
    "RECOVERY_TARGET_LSN = '0/1'",
    'recovery_target_xid = 5',
    "recovery_target_name 'x'",
    "restore_command = 'old'",
    "recovery_end_command = 'old'",
    "archive_cleanup_command = 'old'",
    "recovery_min_apply_delay = '1h'",
    "promote_trigger_file = '/tmp/x'",
    "recovery_target_timeline = 'latest'",
    'recovery_target_inclusive = off',
    "recovery_target_action = 'shutdown'",
    "recovery_target = ''",
    "work_mem = '64MB'",
    '# a comment',
  ].join('\n')
  const text = restoredAutoConf(present, '/data', 'production', record)
  expect(text).not.toMatch(/old|2020|1h|promote_trigger_file|latest|shutdown/)
  const settings = parseServerConfig(text)
  expect([...settings].filter(([name]) => /^recovery_target(_time|_lsn|_xid|_name)?$/.test(name))).toEqual([
    ['recovery_target', 'immediate'],
  ])
  expect(text.match(/^recovery_target *=/gim)).toHaveLength(1)
  expect(settings.get('work_mem')).toBe('64MB')
  expect(text).toContain('# a comment')
})

test('the least settings that recovery demands are kept, whatever stood there', () => {
  for (const profile of ['clone', 'production'] as const) {
    const settings = settingsOf('max_connections = 10\n', '/data', profile)
    expect(settings.get('max_connections')).toBe('200')
    expect(settings.get('max_worker_processes')).toBe('12')
  }
})

test('a clone archives nowhere, replicates from nobody, listens on its own socket, and loads nothing that acts', () => {
  const settings = settingsOf(
    "archive_mode = on\narchive_command = 'push %p'\nprimary_conninfo = 'host=source'\nlisten_addresses = '*'\n",
  )
  expect(Object.fromEntries(settings)).toMatchObject({
    archive_mode: 'off',
    archive_command: '',
    archive_library: '',
    primary_conninfo: '',
    primary_slot_name: '',
    synchronous_standby_names: '',
    max_logical_replication_workers: '0',
    listen_addresses: '',
    unix_socket_permissions: '0700',
    shared_preload_libraries: 'pg_stat_statements, auto_explain',
    session_preload_libraries: '',
    local_preload_libraries: '',
  })
})

test('the production profile leaves all but recovery as it was', () => {
  const settings = settingsOf("archive_mode = on\nlisten_addresses = '*'\n", '/data', 'production')
  expect(settings.get('archive_mode')).toBe('on')
  expect(settings.get('listen_addresses')).toBe('*')
  expect(settings.has('shared_preload_libraries')).toBe(false)
})

test('what cannot be overridden is taken out of other files, and only that', () => {
  expect(
    withoutUnsafeLines(
      "port = 1\nrecovery_target_time = 'x'\nrecovery_target_lsn = ''\ndata_directory = '/source'\nwork_mem = 1\n",
    ),
  ).toBe('port = 1\nwork_mem = 1\n')
  expect(withoutUnsafeLines("port = 1\nrestore_command = 'x'\n")).toBeUndefined()
})
