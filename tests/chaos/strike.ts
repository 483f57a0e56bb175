/** Where in an operation a fault strikes: at a byte of a conversation, at a request, at a file, or at a byte that its processes read or wrote. */
import { readFile, stat } from 'node:fs/promises'
import { type Random, until } from '@tidemark/testkit'
import type { FaultSite } from './faults.ts'

const MiB = 1_048_576
/** Of the source, as BASE_BACKUP sends it: places beyond that are never reached, and the operation goes through. */
const COPY_BYTES = 36 * MiB
/** What an operation's processes write and read by system calls, and ask of the store, as measured: places beyond that are never reached. */
const WRITTEN = { restore: 54 * MiB, resume: 48 * MiB, copy: 38 * MiB }
const READ = { restore: 24 * MiB, resume: 40 * MiB, copy: 48 * MiB }
const REQUESTS = { restore: 24, resume: 34, copyFromS3: 42, copyToS3: 62 }

/** Said by the connection that carries it. */
export const COPY = 'BASE_BACKUP'
export const WAL = 'START_REPLICATION'

/** Where in the answers of a connection: mostly in the middle, sometimes in its first words. */
export function placeOf(chance: Random, said: string | undefined): number {
  if (chance.next() < 0.15) return chance.integer(0, 5000)
  return chance.integer(0, said === WAL ? 16 * MiB : COPY_BYTES)
}

/** Runs `action` at a random point of the operation's progress. */
export async function somewhere(site: FaultSite, action: () => unknown): Promise<void> {
  switch (site.operation) {
    case 'backup':
      return inBackup(site, action)
    case 'restore':
      return inRestore(site, action)
    case 'copy':
      return inCopy(site, action)
    case 'resume':
      return inResume(site, action)
    default:
      return site.operation satisfies never
  }
}

function inBackup(site: FaultSite, action: () => unknown): void {
  const { bench, chance, storage, note } = site
  if (storage !== 'file' && chance.next() < 0.4) return atPut(site, action)
  const bytes = chance.next() < 0.15 ? chance.integer(0, 6000) : chance.integer(0, COPY_BYTES + 20 * MiB)
  note(`after ${bytes} bytes from the server`)
  void bench.server.at({ direction: 'down', bytes }, action).catch(() => {})
}

function inRestore(site: FaultSite, action: () => unknown): void {
  const { chance, storage, note } = site
  // With both, a restore asks the file repository first.
  if (storage === 's3' && chance.next() < 0.6) return atRequest(site, REQUESTS.restore, action)
  if (chance.next() < 0.5) return atTransfer(site, action)
  const file = chance.pick(['tidemark_restore.json', 'base', 'global', 'pg_wal', 'tidemark_wal', 'recovery.signal'])
  note(`once ${file} is there`)
  onceSeen(site, async () => await stat(`${site.target}/${file}`), action)
}

function inCopy(site: FaultSite, action: () => unknown): void {
  const { chance, storage } = site
  const draw = chance.next()
  if (storage === 'both' && draw < 0.4) return atPut(site, action)
  if (storage !== 'file' && draw < 0.8)
    return atRequest(site, REQUESTS[storage === 'both' ? 'copyToS3' : 'copyFromS3'], action)
  return atTransfer(site, action)
}

/** Its files may be there from the start. */
function inResume(site: FaultSite, action: () => unknown): void {
  const { chance, storage } = site
  if (storage === 's3' && chance.next() < 0.5) return atRequest(site, REQUESTS.resume, action)
  return atTransfer(site, action)
}

/** The commit is a small part of the bytes, and the one where order matters most. */
function atPut({ bench, chance, note }: FaultSite, action: () => unknown): void {
  const object = chance.pick(['begin/', 'pack-', 'pack-', 'files-', 'packs.json', 'records/', 'wal/'])
  const skip = object === 'pack-' ? chance.integer(0, 8) : 0
  note(`at put ${skip} of ${object}`)
  bench.store.add({ fault: { kind: 'act', action }, method: 'PUT', path: new RegExp(`/${object}`), skip })
}

function atRequest({ bench, chance, note }: FaultSite, most: number, action: () => unknown): void {
  const skip = chance.integer(0, most)
  note(`at request ${skip}`)
  bench.store.add({ fault: { kind: 'act', action }, skip })
}

/** Once its processes have read or written so many bytes, as the kernel counts them. */
function atTransfer(site: FaultSite, action: () => unknown): void {
  const { chance, operation, note } = site
  const of = operation === 'backup' ? 'restore' : operation
  const way = chance.pick(['wchar', 'wchar', 'rchar'] as const)
  const most = way === 'wchar' ? WRITTEN[of] : READ[of]
  const bytes = chance.next() < 0.2 ? chance.integer(0, MiB / 8) : chance.integer(0, most)
  note(`once ${bytes} bytes are ${way === 'wchar' ? 'written' : 'read'}`)
  const seen = async (): Promise<boolean> => {
    const run = await site.run
    const counts = await Promise.all(run.pids().map(async (pid) => await transferred(pid, way)))
    return counts.reduce((total, n) => total + n, 0) >= bytes
  }
  onceSeen(site, seen, action)
}

async function transferred(pid: number, way: 'wchar' | 'rchar'): Promise<number> {
  const text = await readFile(`/proc/${pid}/io`, 'utf8')
  return Number(new RegExp(`${way}: (\\d+)`).exec(text)?.[1])
}

function onceSeen({ undo }: FaultSite, condition: () => Promise<unknown>, action: () => unknown): void {
  const over = new AbortController()
  undo.defer(() => over.abort())
  const seen = until(async () => over.signal.aborted || Boolean(await condition()), { everyMs: 1, what: 'its place' })
  void seen.then(() => (over.signal.aborted ? undefined : action())).catch(() => {})
}
