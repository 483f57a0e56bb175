/**
 * Carries out a restore plan: files, WAL, recovery settings, and pg_control last.
 *
 * The directory is fenced first and whole last (see TargetDirectory). A failed or aborted restore takes away what it made.
 * Memory: packs in flight are bounded by the number of threads; file names and extents are held, about 100 bytes a file and 40 an extent.
 */
import type { Keyring } from '@tidemark/crypto'
import { type Clock, type Logger, type ReportProgress, throwIfAborted } from '@tidemark/kernel'
import { type Repository, WalLayout, readFileList, readTimelineHistory, readWalSegment } from '@tidemark/repository'
import { RestoreUnsupportedError } from '../errors.ts'
import { runBounded } from '../threads/run-bounded.ts'
import { threadKeys } from '../threads/thread-keys.ts'
import { ThreadPool, ownArrayBuffer } from '../threads/thread-pool.ts'
import { ExtentTable } from './extent-table.ts'
import { fetchPack, fromAny } from './fetch-pack.ts'
import type { RestorePlan } from './plan-restore.ts'
import {
  CLONE_HBA,
  CLONE_HBA_TEXT,
  STAND_IN_CONFIGURATION,
  WAL_FOLDER,
  restoredAutoConf,
  withoutUnsafeLines,
} from './recovery-config.ts'
import type { ScatterReply, ScatterRequest } from './scatter-thread.ts'
import { startCommand } from './start-command.ts'
import { FENCE, TargetDirectory } from './target-directory.ts'

const CONTROL_FILE = 'global/pg_control'
const CONTROL_FILE_WAITING = 'global/pg_control.tidemark'
const AUTO_CONF = 'postgresql.auto.conf'
/**
 * Not laid out: how the source was to start, and what an earlier restore left in it. This restore decides the one and writes the
 * other itself; a source that was once restored is an ordinary source.
 */
const OF_ANOTHER_RESTORE = new Set(['standby.signal', 'recovery.signal', FENCE, CLONE_HBA, WAL_FOLDER])
/** Configuration an include directive may reach: anything but the server's own folders. */
const CONFIGURATION = /^(?!base\/|global\/|pg_)(?:.+\/)?[^/]+\.conf$/
const FSYNCS_AT_ONCE = 16

export interface RestoreDeps {
  readonly keyring: Keyring
  readonly threads: number
  readonly clock: Clock
  readonly logger: Logger
  readonly signal: AbortSignal
  readonly progress: ReportProgress
}

export interface RestoreOutcome {
  readonly backupId: string
  readonly targetDirectory: string
  readonly bytes: number
  readonly files: number
  readonly walSegments: number
  readonly durationMs: number
  /** The shell command that starts the restored server. */
  readonly startCommand: string
}

/**
 * @throws {TargetNotEmptyError} @throws {TargetWriteError} @throws {BackupIncompleteError} @throws {SealRefusedError}
 *   In each case the target is as empty as it was.
 */
export async function restoreBackup(plan: RestorePlan, deps: RestoreDeps): Promise<RestoreOutcome> {
  const startedMs = deps.clock.monotonicMs()
  const { record, request } = plan
  const fence = {
    backupId: record.backupId,
    cluster: record.cluster,
    profile: request.profile,
    startedAt: deps.clock.now().toISOString(),
  }
  const target = await TargetDirectory.claim(request.targetDirectory, plan.owner, fence)
  try {
    const { files, extents } = await layOut(plan, target, deps)
    const bytes = await fillFiles(plan, target, files, extents, deps)
    await placeWal(plan, target, deps)
    await writeRecoverySettings(plan, target, files)
    await syncAll(target, files, deps)
    await target.promote(CONTROL_FILE_WAITING, CONTROL_FILE)
    const outcome = {
      backupId: record.backupId,
      targetDirectory: request.targetDirectory,
      bytes,
      files: files.length,
      walSegments: plan.table.wal.length,
      durationMs: Math.round(deps.clock.monotonicMs() - startedMs),
      startCommand: startCommand(record, request.targetDirectory, plan.owner),
    }
    await target.complete({ ...fence, finishedAt: deps.clock.now().toISOString() })
    return outcome
  } catch (error) {
    await target
      .discard()
      .catch((cause: unknown) =>
        deps.logger.error({ err: cause, directory: target.path }, 'half a restore was left behind'),
      )
    throw error
  }
}

/** Directories and empty files, and where every piece of them is. pg_control gets a name the server does not know. */
async function layOut(
  plan: RestorePlan,
  target: TargetDirectory,
  deps: RestoreDeps,
): Promise<{ files: string[]; extents: ExtentTable }> {
  const { record, table } = plan
  const files: string[] = []
  const extents = new ExtentTable(table.packs.length)
  for await (const entry of fileListOf(plan, deps)) {
    throwIfAborted(deps.signal, 'the restore')
    if (OF_ANOTHER_RESTORE.has(entry.path.split('/', 1)[0] ?? '')) continue
    if (entry.type === 'symlink') {
      throw new RestoreUnsupportedError(
        record.backupId,
        `a link at ${entry.path}`,
        'report this: PostgreSQL sends links only for tablespaces',
      )
    }
    if (entry.type === 'directory') {
      await target.makeDirectory(entry.path, entry.mode)
      continue
    }
    const path = entry.path === CONTROL_FILE ? CONTROL_FILE_WAITING : entry.path
    await target.makeFile(path, entry.mode, entry.size)
    for (const extent of entry.extents) extents.add(files.length, extent)
    files.push(path)
    if (files.length % 256 === 0) deps.progress({ phase: 'layout', bytesDone: 0, files: files.length })
  }
  return { files, extents }
}

async function* fileListOf(plan: RestorePlan, deps: RestoreDeps): ReturnType<typeof readFileList> {
  const [source] = plan.sources
  if (source === undefined) throw new RangeError('a plan without a source')
  yield* readFileList(source, plan.record, plan.table, deps.keyring.dataKey, deps.signal)
}

/** Fetches packs and scatters them; at most one more pack than threads is in memory. */
async function fillFiles(
  plan: RestorePlan,
  target: TargetDirectory,
  files: readonly string[],
  extents: ExtentTable,
  deps: RestoreDeps,
): Promise<number> {
  const { record, table, sources } = plan
  await using pool = new ThreadPool<ScatterRequest, ScatterReply>(
    new URL('./scatter-thread.ts', import.meta.url),
    threadKeys(deps.keyring),
    deps.threads,
  )
  let bytesDone = 0
  let bytesFetched = 0
  await runBounded(table.packs.entries(), deps.threads + 1, deps.signal, async ([i, pack], signal) => {
    const { files: paths, writes } = extents.take(i, (file) => target.absolute(files[file] ?? ''))
    if (writes.length === 0) return
    const stored = ownArrayBuffer(await fetchPack(sources, record, pack, deps.logger, signal))
    const request: ScatterRequest = {
      stored,
      backupId: pack.backup ?? record.backupId,
      ordinal: Number(pack.name.slice('pack-'.length)),
      what: `${pack.name} of backup ${pack.backup ?? record.backupId}`,
      files: paths,
      writes,
    }
    const { bytes } = await pool.call(request, [stored])
    bytesDone += bytes
    bytesFetched += pack.bytes
    deps.progress({
      phase: 'copy',
      bytesDone,
      bytesTotal: record.totals.bytes,
      bytesStored: bytesFetched,
      files: files.length,
    })
  })
  return bytesDone
}

/** The backup's own segments and history, where restore_command will look. */
async function placeWal(plan: RestorePlan, target: TargetDirectory, deps: RestoreDeps): Promise<void> {
  const { record, table, sources } = plan
  const wal = new WalLayout(record.cluster, record.systemId)
  const { keyring } = deps
  await target.makeDirectory(WAL_FOLDER, 0o700)
  let done = 0
  const place = async (
    read: (source: Repository, signal: AbortSignal) => Promise<{ fileName: string; bytes: Buffer }>,
    signal: AbortSignal,
  ): Promise<void> => {
    const { fileName, bytes } = await fromAny(sources, (source) => read(source, signal), deps.logger, signal)
    await target.writeFile(`${WAL_FOLDER}/${fileName}`, bytes)
    done += bytes.length
    deps.progress({ phase: 'wal', bytesDone: done, bytesTotal: table.wal.length * record.server.walSegmentBytes })
  }
  await runBounded(table.wal.values(), 2, deps.signal, (name, signal) =>
    place((source, s) => readWalSegment(source, wal, name, record.server.walSegmentBytes, keyring, s), signal),
  )
  await runBounded(table.history.values(), 2, deps.signal, (name, signal) =>
    place((source, s) => readTimelineHistory(source, wal, name, keyring, s), signal),
  )
}

async function writeRecoverySettings(
  plan: RestorePlan,
  target: TargetDirectory,
  files: readonly string[],
): Promise<void> {
  const { record, request } = plan
  const present = files.includes(AUTO_CONF) ? (await target.readFile(AUTO_CONF)).toString('latin1') : ''
  const text = restoredAutoConf(
    present,
    Buffer.from(request.targetDirectory).toString('latin1'),
    request.profile,
    record,
  )
  await replaceFile(target, AUTO_CONF, Buffer.from(text, 'latin1'))
  for (const file of files.filter((name) => CONFIGURATION.test(name))) {
    const cleaned = withoutUnsafeLines((await target.readFile(file)).toString('latin1'))
    if (cleaned !== undefined) await replaceFile(target, file, Buffer.from(cleaned, 'latin1'))
  }
  for (const [name, text] of Object.entries(STAND_IN_CONFIGURATION)) {
    if (!files.includes(name)) await target.writeFile(name, Buffer.from(text))
  }
  if (request.profile === 'clone') await target.writeFile(CLONE_HBA, Buffer.from(CLONE_HBA_TEXT))
  await target.writeFile('recovery.signal', Buffer.alloc(0))
}

async function replaceFile(target: TargetDirectory, name: string, contents: Buffer): Promise<void> {
  await target.writeFile(`${name}.tidemark`, contents)
  await target.promote(`${name}.tidemark`, name)
}

async function syncAll(target: TargetDirectory, files: readonly string[], deps: RestoreDeps): Promise<void> {
  let done = 0
  await runBounded(files.values(), FSYNCS_AT_ONCE, deps.signal, async (file) => {
    await target.sync(file)
    done += 1
    if (done % 64 === 0) deps.progress({ phase: 'sync', bytesDone: 0, files: done })
  })
  await target.syncDirectories()
}
