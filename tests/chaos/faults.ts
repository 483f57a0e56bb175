/**
 * What can go wrong in a round. The list is open: a fault is a name, where it applies, and what it arms.
 *
 * A fault happens at a byte, a request or a file, never at a time: the same round seed gives the same fault.
 */
import { appendFile, mkdir, rm } from 'node:fs/promises'
import { type Random, type S3Rule, runTool, unprivilegedUser } from '@tidemark/testkit'
import type { ChaosBench } from './bench.ts'
import type { Engine, Run, RunOptions } from './engines.ts'
import { COPY, WAL, placeOf, somewhere } from './strike.ts'

const MiB = 1_048_576

/** `resume`: restores that are broken off, in a new directory or over an older restore, and one that goes on. */
export const OPERATIONS = ['backup', 'restore', 'copy', 'resume'] as const
export type Operation = (typeof OPERATIONS)[number]
/**
 * `both`: a file repository that is required, and one in S3 that may not be.
 * Of a copy, from and to: `file` between two folders, `s3` from S3 into a folder, `both` from a folder to S3.
 */
export type Storage = 'file' | 's3' | 'both'

/** What a fault may use to do its work. */
export interface FaultSite {
  readonly bench: ChaosBench
  readonly chance: Random
  readonly engine: Engine
  readonly operation: Operation
  readonly storage: Storage
  /** Of the file repository that is written to, on a disk of its own where the fault asked for one. */
  readonly repositoryFolder: string
  readonly target: string
  /** The operation, once it has begun. */
  readonly run: Promise<Run>
  /** For the summary and the evidence. */
  readonly note: (text: string) => void
  /** Undone before anything is checked. */
  readonly undo: AsyncDisposableStack
}

export interface FaultKind {
  readonly name: string
  /** How often it is drawn, beside the others. */
  readonly weight: number
  readonly engines: readonly Engine[]
  readonly operations: readonly Operation[]
  readonly storage: readonly Storage[]
  /** Where it is another for copies. */
  readonly storageOfCopies?: readonly Storage[]
  /** Needs root, for a file system of its own. */
  readonly disk?: 'repository' | 'target'
  /** Of processes that were killed, or scratch objects that could not be deleted. */
  readonly leavesDebris?: true
  readonly options?: (chance: Random) => RunOptions
  /** Before the operation begins; the set is initialised, the target is there. */
  arm(site: FaultSite): void | Promise<void>
}

const EVERY: readonly Engine[] = ['cli', 'process', 'fleet']
/** Those that give up within seconds. */
const PATIENT_NO_LONGER: readonly Engine[] = ['process', 'fleet']
const WRITES_TARGET = ['restore', 'resume'] as const
const ANY: readonly Storage[] = ['file', 's3', 'both']

export const FAULTS: readonly FaultKind[] = [
  { name: 'none', weight: 3, engines: EVERY, operations: OPERATIONS, storage: ANY, arm: () => {} },
  {
    name: 'kill -9',
    leavesDebris: true,
    weight: 10,
    engines: EVERY,
    operations: OPERATIONS,
    storage: ANY,
    arm: (site) => somewhere(site, async () => await (await site.run).kill()),
  },
  {
    name: 'SIGTERM',
    weight: 3,
    engines: ['cli'],
    operations: OPERATIONS,
    storage: ANY,
    arm: (site) => somewhere(site, async () => (await site.run).terminate()),
  },
  {
    name: 'connection cut',
    weight: 5,
    engines: EVERY,
    operations: ['backup'],
    storage: ANY,
    arm: ({ bench, chance, note }) => {
      const said = chance.pick([COPY, COPY, WAL, undefined])
      const kind = chance.pick(['reset', 'end'] as const)
      const direction = chance.pick(['down', 'down', 'up'] as const)
      const bytes = direction === 'up' ? chance.integer(0, 2000) : placeOf(chance, said)
      note(`${kind} of ${said ?? 'any connection'} after ${bytes} bytes ${direction}`)
      void bench.server.at({ direction, bytes, said }, (connection) => connection.cut(kind))
    },
  },
  {
    name: 'connection stalled',
    weight: 4,
    engines: PATIENT_NO_LONGER,
    operations: ['backup'],
    storage: ANY,
    arm: ({ bench, chance, note }) => {
      const said = chance.pick([COPY, WAL])
      const bytes = placeOf(chance, said)
      note(`${said} stalls after ${bytes} bytes`)
      void bench.server.at({ direction: 'down', bytes, said }, () => bench.server.stall(said))
    },
  },
  {
    name: 'server unreachable',
    weight: 2,
    engines: EVERY,
    operations: ['backup'],
    storage: ANY,
    arm: ({ bench, chance, note }) => {
      const bytes = chance.integer(0, 3000)
      note(`after ${bytes} bytes up`)
      void bench.server.at({ direction: 'up', bytes }, () => {
        bench.server.cut('reset')
        bench.server.refuse()
      })
    },
  },
  {
    name: 'slow line',
    weight: 1,
    engines: EVERY,
    operations: ['backup'],
    storage: ANY,
    arm: ({ bench, chance, note }) => {
      const bytes = chance.integer(16 * MiB, 30 * MiB)
      note(`16 MiB/s after ${bytes} bytes`)
      void bench.server.at({ direction: 'down', bytes, said: COPY }, () => bench.server.slowTo(16 * MiB))
    },
  },
  {
    name: 'PostgreSQL killed or restarted',
    weight: 5,
    engines: EVERY,
    operations: ['backup'],
    storage: ANY,
    arm: ({ bench, chance, note, undo }) => {
      const how = chance.pick(['killed', 'immediate', 'fast'] as const)
      const bytes = placeOf(chance, COPY)
      note(`${how} after ${bytes} bytes of the copy`)
      void bench.server.at({ direction: 'down', bytes, said: COPY }, async () => {
        const restarted = (how === 'killed' ? bench.source.killHard() : bench.source.stop(how)).then(() =>
          bench.source.start(),
        )
        undo.defer(() => restarted)
        // A fast shutdown waits for the walsender that is held here.
        if (how === 'killed') await restarted
      })
    },
  },
  {
    name: 'S3 errors that pass',
    weight: 6,
    engines: EVERY,
    operations: OPERATIONS,
    storage: ['s3', 'both'],
    arm: ({ bench, chance, note }) => {
      const rules = Array.from({ length: chance.integer(1, 4) }, () => passing(chance))
      note(rules.map((rule) => `${rule.fault.kind} after ${rule.skip} of ${String(rule.path)}`).join(', '))
      bench.store.add(...rules)
    },
  },
  {
    name: 'S3 away',
    leavesDebris: true,
    weight: 5,
    engines: PATIENT_NO_LONGER,
    operations: OPERATIONS,
    storage: ['s3', 'both'],
    arm: ({ bench, chance, note }) => {
      const fault = chance.pick<S3Rule['fault']>([
        { kind: 'reset' },
        { kind: 'status', status: 500, code: 'InternalError' },
        { kind: 'status', status: 503, code: 'SlowDown' },
        { kind: 'status', status: 403, code: 'AccessDenied' },
        { kind: 'lose-answer' },
        { kind: 'hang' },
      ])
      const skip = chance.integer(0, 60)
      note(`${fault.kind} from request ${skip} on`)
      bench.store.add({ fault, skip, times: Infinity })
    },
  },
  {
    name: 'S3 lies about conditions',
    weight: 3,
    engines: EVERY,
    operations: ['backup', 'copy'],
    storage: ['s3', 'both'],
    storageOfCopies: ['both'],
    arm: ({ bench, chance, note }) => {
      const fault = chance.pick<S3Rule['fault']>([{ kind: 'overwrite' }, { kind: 'lie-stored' }])
      note(fault.kind)
      bench.store.add({ fault, method: 'PUT', path: /\/(records|wal|scratch)\//, times: Infinity })
    },
  },
  {
    name: 'S3 flips a bit',
    weight: 2,
    engines: EVERY,
    operations: ['restore', 'copy', 'resume'],
    storage: ['s3'],
    arm: ({ bench, chance, note }) => {
      const byte = chance.integer(0, 1_000_000)
      const skip = chance.integer(0, 12)
      note(`byte ${byte} of read ${skip}`)
      bench.store.add({ fault: { kind: 'flip', byte }, method: 'GET', path: /\/(base|wal)\//, skip })
    },
  },
  {
    name: 'disk full in the repository',
    weight: 4,
    engines: EVERY,
    operations: ['backup', 'copy'],
    storage: ['file', 'both'],
    storageOfCopies: ['file', 's3'],
    disk: 'repository',
    arm: async ({ chance, note, operation, repositoryFolder, undo }) => {
      // A backup is about 12 MiB of packs, a file list and sealed WAL; a copy is of two backups.
      const free = chance.integer(1, operation === 'copy' ? 26 : 14) * MiB
      const hog = `${repositoryFolder}/hog`
      await fillExcept(repositoryFolder, hog, free)
      undo.defer(() => rm(hog, { force: true }))
      note(`${free / MiB} MiB free`)
    },
  },
  {
    name: 'disk full in the target',
    weight: 4,
    engines: EVERY,
    operations: WRITES_TARGET,
    storage: ['s3'],
    disk: 'target',
    arm: (site) => {
      const { bench, chance, target, note, undo } = site
      const skip = chance.integer(0, 10)
      const hog = `${target}/hog`
      note(`from read ${skip} of a pack on`)
      undo.defer(() => rm(hog, { force: true }))
      // The plan has found room enough; somebody else fills the disk then.
      bench.store.add({
        fault: { kind: 'act', action: () => fillExcept(target, hog, 0) },
        method: 'GET',
        path: /\/pack-/,
        skip,
      })
    },
  },
  {
    name: 'wrong clock',
    weight: 3,
    engines: ['process'],
    operations: OPERATIONS,
    storage: ANY,
    options: (chance) => ({
      clock: {
        clockOffsetMs: chance.pick([-2, 2]) * 3_600_000,
        clockWrongFromBytes: chance.pick([0, chance.integer(1, 30 * MiB)]),
      },
    }),
    arm: () => {},
  },
  {
    name: 'twins',
    weight: 3,
    engines: ['process'],
    operations: ['backup', 'copy', 'resume'],
    storage: ANY,
    options: (chance) => ({ twins: chance.integer(2, 3) }),
    arm: () => {},
  },
  {
    name: 'Redis killed',
    weight: 3,
    engines: ['fleet'],
    operations: OPERATIONS,
    storage: ['s3', 'both'],
    arm: (site) =>
      somewhere(site, async () => {
        await site.bench.redis.killHard()
        await site.bench.redis.start()
      }),
  },
  {
    name: 'Redis wiped',
    weight: 3,
    engines: ['fleet'],
    operations: OPERATIONS,
    storage: ['s3', 'both'],
    arm: (site) => somewhere(site, () => site.bench.wipeRedis()),
  },
]

function passing(chance: Random): S3Rule {
  const fault = chance.pick<S3Rule['fault']>([
    { kind: 'status', status: 500, code: 'InternalError' },
    { kind: 'status', status: 503, code: 'SlowDown' },
    { kind: 'reset' },
    { kind: 'lose-answer' },
    { kind: 'truncate', bytes: chance.integer(0, 50) },
    { kind: 'slow', bytesPerSecond: 2_000_000 },
  ])
  const path = chance.pick([/./, /\/pack-/, /\/wal\//, /\/records\//, /list-type/])
  return { fault, path, skip: chance.integer(0, path.source === '.' ? 50 : 4) }
}

/** Fills the file system that `folder` is on, but for so many bytes. */
async function fillExcept(folder: string, hog: string, freeBytes: number): Promise<void> {
  const chunk = Buffer.alloc(MiB / 4, 7)
  const { stdout } = await runTool('df', ['--output=avail', '-B1', folder])
  const available = Number(stdout.split('\n')[1])
  for (let bytes = available - freeBytes; bytes > 0; bytes -= chunk.length) {
    try {
      await appendFile(hog, chunk.subarray(0, Math.min(bytes, chunk.length)))
    } catch {
      return // full it is
    }
  }
}

/** A file system of its own below `path`, owned by the user that servers run as. */
export async function mountSmallDisk(path: string, bytes: number, undo: AsyncDisposableStack): Promise<void> {
  await mkdir(path, { recursive: true })
  const owner = unprivilegedUser()
  const mode = owner === undefined ? '' : `,mode=0700,uid=${owner.uid},gid=${owner.gid}`
  await runTool('mount', ['-t', 'tmpfs', '-o', `size=${bytes}${mode}`, 'tmpfs', path])
  undo.defer(async () => void (await runTool('umount', ['--lazy', path])))
}
