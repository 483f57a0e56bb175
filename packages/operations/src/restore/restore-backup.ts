/**
 * Carries out a restore plan: files, WAL, recovery settings, and pg_control last.
 *
 * The directory is fenced first and whole last (see TargetDirectory). A restore that fails or is stopped keeps what it has written, behind
 * its fence and unable to start, for another one to go on with; or takes it away, where that is asked for.
 * Memory: 20 MiB while the file list is read, a buffer for each thread and one more afterwards (fill-files); nothing is held per file.
 */
import { rm } from 'node:fs/promises'
import type { Keyring } from '@tidemark/crypto'
import {
  type Clock,
  type Logger,
  OperationalError,
  RelayedError,
  type ReportProgress,
  problemOf,
  throwIfAborted,
} from '@tidemark/kernel'
import {
  type FileEntry,
  type Repository,
  WalLayout,
  readFileList,
  readTimelineHistory,
  readWalSegment,
} from '@tidemark/repository'
import { RestoreUnsupportedError } from '../errors.ts'
import { runBounded } from '../threads/run-bounded.ts'
import { threadKeys } from '../threads/thread-keys.ts'
import { ThreadPool } from '@tidemark/kernel/threads'
import { BackupReader } from './fetch-pack.ts'
import { type Filled, type RestorePool, fillFiles } from './fill-files.ts'
import type { RestorePlan } from './plan-restore.ts'
import { CLONE_HBA, WAL_FOLDER } from './recovery-config.ts'
import type { RestoreThreadData } from './restore-thread.ts'
import { RestoreSpool } from './spool/restore-spool.ts'
import { startCommand } from './start-command.ts'
import { sweepTarget } from './sweep-target.ts'
import { FileSync } from './sync-files.ts'
import { CONTROL_FILE, CONTROL_FILE_WAITING, FENCE, TargetDirectory } from './target-directory.ts'
import { LOCK_FILE } from './target-lock.ts'
import { CAPTURED_FOLDER, Configuration } from './write-configuration.ts'

const SPOOL = 'tidemark_spool'
/**
 * Not laid out: how the source was to start, and what an earlier restore left in it. This restore decides the one and writes the
 * other itself; a source that was once restored is an ordinary source.
 */
const OF_ANOTHER_RESTORE = new Set([
  'standby.signal',
  'recovery.signal',
  FENCE,
  CLONE_HBA,
  WAL_FOLDER,
  SPOOL,
  LOCK_FILE,
  CAPTURED_FOLDER,
])
const FILES_LAID_OUT_AT_ONCE = 512

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
  /** Bytes that an earlier restore had brought already. */
  readonly sameBytes: number
  readonly fetchedBytes: number
  /** Objects, or parts of them, that came damaged at first and were read again. */
  readonly rereads: number
  readonly walSegments: number
  readonly durationMs: number
  /** The shell command that starts the restored server. */
  readonly startCommand: string
}

/**
 * @throws {TargetNotEmptyError} @throws {TargetInUseError} @throws {TargetNotResumableError}: nothing was changed.
 * @throws {TargetWriteError} @throws {BackupIncompleteError} @throws {SealRefusedError}: the target is kept behind its fence, or, with
 *   `discardOnFailure`, is as empty as it was; or is whole, where that alone failed which comes after the last word: the hint says so.
 */
export async function restoreBackup(plan: RestorePlan, deps: RestoreDeps): Promise<RestoreOutcome> {
  const startedMs = deps.clock.monotonicMs()
  const { record, request } = plan
  const target = await TargetDirectory.claim(request.targetDirectory, {
    owner: plan.owner,
    mode: plan.mode,
    place: plan.place,
    tablespaces: plan.tablespaces.flatMap(({ oid, kind, target, place }) =>
      target === undefined || place === undefined ? [] : [{ oid, path: target.path, place, linked: kind === 'copied' }],
    ),
    fence: {
      backupId: record.backupId,
      cluster: record.cluster,
      systemId: record.systemId,
      profile: request.profile,
      configuration: request.configuration ?? 'stand-in',
      startedAt: deps.clock.now().toISOString(),
    },
  })
  try {
    const { filled, files, rereads } = target.isReady ? thereAlready(plan) : await copy(plan, target, deps)
    const outcome = {
      backupId: record.backupId,
      targetDirectory: request.targetDirectory,
      bytes: filled.bytes,
      files,
      sameBytes: filled.sameBytes,
      fetchedBytes: filled.fetchedBytes,
      rereads,
      walSegments: plan.table.wal.length,
      durationMs: Math.round(deps.clock.monotonicMs() - startedMs),
      startCommand: startCommand(record, request.targetDirectory, plan.owner),
    }
    await target.complete(deps.clock.now().toISOString())
    return outcome
  } catch (error) {
    const kept = plan.mode !== 'new' || request.discardOnFailure !== true
    const left = (cause: unknown): void =>
      deps.logger.error({ err: cause, directory: target.path }, 'half a restore was left behind')
    if (!kept)
      await target.discard().catch(async (cause: unknown) => {
        left(cause)
        await target.keep().catch(left)
      })
    else await target.keep().catch(left)
    if (target.isComplete) throw wholeError(error, plan)
    throw kept ? keptError(error, plan) : error
  }
}

interface Copied {
  readonly filled: Filled
  readonly files: number
  readonly rereads: number
}

/** An earlier restore has copied everything, and was stopped before it could say so. */
function thereAlready({ record: { totals } }: RestorePlan): Copied {
  const filled = { bytes: totals.bytes, sameBytes: totals.bytes, fetchedBytes: 0 }
  return { filled, files: totals.files, rereads: 0 }
}

async function copy(plan: RestorePlan, target: TargetDirectory, deps: RestoreDeps): Promise<Copied> {
  const { record, table } = plan
  const reader = new BackupReader(plan, deps.logger)
  const configuration = new Configuration(record.backupId)
  const existing = plan.mode !== 'new'
  let files: number
  let filled: Filled
  await rm(target.join(SPOOL), { recursive: true, force: true })
  {
    const entries = entriesOf(reader, configuration, deps)
    await using spool = await RestoreSpool.fill(target.join(SPOOL), entries, table.packs.length)
    files = spool.files
    if (existing) await sweepTarget(target, spool, SPOOL, deps.signal)
    for await (const { path, mode } of spool.directories()) await target.makeDirectory(path, mode)
    await target.linkTablespaces()
    const data: RestoreThreadData = {
      ...threadKeys(deps.keyring),
      spool: spool.place,
      target: target.paths,
      owner: target.owner,
    }
    await using pool: RestorePool = new ThreadPool(new URL('./restore-thread.ts', import.meta.url), data, deps.threads)
    await layOut(spool, pool, existing, deps)
    filled = await fillAndSync(reader, target, spool, pool, existing, deps)
  }
  await placeWal(plan, reader, target, deps)
  await configuration.write(plan, target)
  await target.syncDirectories()
  return { filled, files, rereads: reader.rereads.count }
}

/** What is to be laid out. pg_control gets a name the server does not know. */
async function* entriesOf(
  { record, table, sources, rereads }: BackupReader,
  configuration: Configuration,
  deps: RestoreDeps,
): AsyncGenerator<FileEntry> {
  const [source] = sources
  if (source === undefined) throw new RangeError('a plan without a source')
  let files = 0
  const read = (): AsyncIterable<FileEntry> => readFileList(source, record, table, deps.keyring.dataKey, deps.signal)
  for await (const entry of rereads.onceFromStart(source, deps.signal, read)) {
    if (OF_ANOTHER_RESTORE.has(entry.path.split('/', 1)[0] ?? '')) continue
    if (entry.type === 'symlink') {
      throw new RestoreUnsupportedError(
        record.backupId,
        `a link at ${entry.path}`,
        'report this: PostgreSQL sends links only for tablespaces',
      )
    }
    if (entry.type === 'file') {
      files += 1
      configuration.note(entry.path)
      if (files % 4096 === 0) {
        throwIfAborted(deps.signal, 'the restore')
        deps.progress({ phase: 'layout', bytesDone: 0, files })
      }
    }
    yield entry.path === CONTROL_FILE ? { ...entry, path: CONTROL_FILE_WAITING } : entry
  }
}

async function layOut(spool: RestoreSpool, pool: RestorePool, existing: boolean, deps: RestoreDeps): Promise<void> {
  const { signal } = deps
  await runBounded(batches(spool.files), pool.size * 2, signal, async (from) => {
    const to = Math.min(from + FILES_LAID_OUT_AT_ONCE, spool.files)
    await pool.call({ type: 'layout', from, to, existing })
    deps.progress({ phase: 'layout', bytesDone: 0, files: to })
  })
}

function* batches(files: number): Generator<number> {
  for (let from = 0; from < files; from += FILES_LAID_OUT_AT_ONCE) yield from
}

/** Whichever of the two fails stops the other, and is waited for with it. */
async function fillAndSync(
  reader: BackupReader,
  target: TargetDirectory,
  spool: RestoreSpool,
  pool: RestorePool,
  compare: boolean,
  deps: RestoreDeps,
): Promise<Filled> {
  const stop = new AbortController()
  const signal = AbortSignal.any([deps.signal, stop.signal])
  const sync = new FileSync(spool, reader.table.packs.length, target.paths, deps.signal)
  const synced = sync.run().catch((error: unknown) => {
    stop.abort(error)
    throw error
  })
  synced.catch(() => {})
  try {
    const packDone = (pack: number): void => sync.packDone(pack)
    const filled = await fillFiles({ reader, spool, pool, compare, signal, progress: deps.progress, packDone })
    await synced
    return filled
  } catch (error) {
    sync.stop()
    await synced.catch(() => {})
    if (stop.signal.aborted && !deps.signal.aborted) throw stop.signal.reason
    throw error
  }
}

/** The backup's own segments and history, where restore_command will look. */
async function placeWal(
  plan: RestorePlan,
  reader: BackupReader,
  target: TargetDirectory,
  deps: RestoreDeps,
): Promise<void> {
  const { record, table } = plan
  const wal = new WalLayout(record.cluster, record.systemId)
  const { keyring } = deps
  await target.makeDirectory(WAL_FOLDER, 0o700)
  let done = 0
  const place = async (
    read: (source: Repository, signal: AbortSignal) => Promise<{ fileName: string; bytes: Buffer }>,
    signal: AbortSignal,
  ): Promise<void> => {
    const { fileName, bytes } = await reader.fromAny(signal, (source) => read(source, signal))
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

function keptError(error: unknown, { record, request: { targetDirectory } }: RestorePlan): unknown {
  const goOn = `tidemark restore run ${record.backupId} --target ${targetDirectory} --resume`
  const became = `what was written is kept and cannot start: go on with \`${goOn}\`, or remove it`
  return explained(error, became, { kept: targetDirectory })
}

function wholeError(error: unknown, { request: { targetDirectory } }: RestorePlan): unknown {
  const became = `all of the restore is in place in ${targetDirectory}: see that it and its tablespaces belong to the server's user, and start it`
  return explained(error, became, { complete: targetDirectory })
}

/** The same error, which also says what has become of the target. */
function explained(error: unknown, became: string, facts: Readonly<Record<string, unknown>>): unknown {
  if (!(error instanceof OperationalError)) return error
  const problem = problemOf(error)
  const relayed = new RelayedError({
    ...problem,
    hint: `${problem.hint}; ${became}`,
    facts: { ...problem.facts, ...facts },
  })
  relayed.cause = error
  return relayed
}
