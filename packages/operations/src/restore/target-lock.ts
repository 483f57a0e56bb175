/**
 * A restore holds its target as a server does: by postmaster.pid.
 *
 * A server that is started on the directory meanwhile finds a live process there and ends (CreateLockFile,
 * src/backend/utils/init/miscinit.c); a restore finds a running server, or another restore, the same way. A stale file, of a process
 * that is gone, is taken over, unless processes of a dead postmaster still use its shared memory.
 */
import { type FileHandle, open, readFile, unlink } from 'node:fs/promises'
import { TargetInUseError, TargetWriteError } from '../errors.ts'

export const LOCK_FILE = 'postmaster.pid'
const ATTEMPTS = 5
/** Of the lock file (utils/pidfile.h): shared memory key and id. */
const SHARED_MEMORY_LINE = 7

/** @param base the directory as this process reaches it. @throws {TargetInUseError} @throws {TargetWriteError} */
export async function acquireLock(base: string, directory: string): Promise<void> {
  const path = `${base}/${LOCK_FILE}`
  for (let attempt = 1; ; attempt += 1) {
    let handle: FileHandle
    try {
      handle = await open(path, 'wx', 0o600)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw new TargetWriteError(path, error)
      if (attempt === ATTEMPTS) throw new TargetInUseError(directory, undefined)
      await refuseIfHeld(path, directory)
      await unlink(path).catch(ignoreAbsent)
      continue
    }
    await using file = handle
    await file.writeFile(`${process.pid}\n${directory}\n`)
    await file.sync()
    return
  }
}

/** Leaves a lock that is somebody else's. */
export async function releaseLock(base: string): Promise<void> {
  const text = await readFile(`${base}/${LOCK_FILE}`, 'utf8').catch(() => '')
  if (Number(text.split('\n', 1)[0]) === process.pid) await unlink(`${base}/${LOCK_FILE}`).catch(ignoreAbsent)
}

/** Looks only. @throws {TargetInUseError} */
export async function refuseIfHeld(path: string, directory: string): Promise<void> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    ignoreAbsent(error as NodeJS.ErrnoException)
    return undefined
  })
  if (text === undefined) return
  // Somebody is between making the file and writing it, or was killed there: PostgreSQL takes an empty one as held, too.
  if (text === '') throw new TargetInUseError(directory, undefined)
  const lines = text.split('\n')
  const pid = Math.abs(Number.parseInt(lines[0] ?? '', 10))
  // A process of this number that is not ours: in a container, a dead restore may well have had our own.
  if (pid > 0 && pid !== process.pid && isAlive(pid)) throw new TargetInUseError(directory, pid)
  const shmid = Number(lines[SHARED_MEMORY_LINE - 1]?.trim().split(/\s+/)[1])
  if (Number.isSafeInteger(shmid) && (await isAttached(shmid))) throw new TargetInUseError(directory, undefined)
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

/** On Linux; elsewhere the kernel does not tell. */
async function isAttached(shmid: number): Promise<boolean> {
  const table = await readFile('/proc/sysvipc/shm', 'utf8').catch(() => '')
  return table
    .split('\n')
    .slice(1)
    .map((line) => line.trim().split(/\s+/).map(Number))
    .some(([, id, , , , , attached = 0]) => id === shmid && attached > 0)
}

function ignoreAbsent(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOENT') throw error
}
