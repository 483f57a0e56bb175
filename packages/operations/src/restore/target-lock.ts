/**
 * A restore holds its target as a server does: by postmaster.pid.
 *
 * A server that is started on the directory meanwhile finds a live process there and ends (CreateLockFile,
 * src/backend/utils/init/miscinit.c); a restore finds a running server the same way. Restores keep each other out by a lock of the kernel's
 * on the directory itself (TargetRoot): whoever takes this one holds that one, so a file that a restore has left is stale, whatever process
 * has its number today, and two can never take over the same one. The kernel's lock of a directory does not reach other hosts, on NFS
 * neither, and a host's name would not tell a restarted container from another machine: one host at a time is the operator's part. A server's file is stale once its process is gone, unless processes of
 * a dead postmaster still use its shared memory. One that has our own number is not ours: in a container every first process has it.
 */
import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { link, open, readFile, unlink } from 'node:fs/promises'
import { OperationalError } from '@tidemark/kernel'
import { TargetInUseError, TargetWriteError } from '../errors.ts'
import { lockDescriptor } from '../locks/lock-descriptor.ts'
import { readPlanted } from './read-planted.ts'

export const LOCK_FILE = 'postmaster.pid'
const ATTEMPTS = 5
/** How the third line of a restore's file begins; a server's has the time of its start there. */
const OF_A_RESTORE = 'tidemark restore'
/** Of the lock file (utils/pidfile.h): shared memory key and id. */
const SHARED_MEMORY_LINE = 7
const NEW = constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY | constants.O_NOFOLLOW

export class TargetLock {
  readonly #path: string
  /** Of its own in every file. An inode would not do: the next file may well get the same. */
  readonly #text: string
  private constructor(path: string, text: string) {
    this.#path = path
    this.#text = text
  }

  /**
   * The caller holds the directory's own lock.
   *
   * @param base the directory as this process reaches it. @throws {TargetInUseError} @throws {TargetWriteError}
   */
  static async acquire(base: string, directory: string): Promise<TargetLock> {
    const path = `${base}/${LOCK_FILE}`
    // Linked once it is written: nobody finds it empty, also when this process is killed in between.
    const token = randomBytes(8).toString('hex')
    const text = `${process.pid}\n${directory}\n${OF_A_RESTORE} ${token}\n`
    const written = `${base}/tidemark_lock.${token}`
    try {
      await using file = await open(written, NEW, 0o600)
      await file.writeFile(text)
      await file.sync()
      for (let attempt = 1; !(await linked(written, path)); attempt += 1) {
        if (attempt > ATTEMPTS) throw new TargetInUseError(directory, undefined)
        const stale = await refuseIfHeld(base, directory, 'locked')
        // A server may be taking over the same stale file: what it has put there since is left alone.
        if (stale !== undefined) await unlinkIf(path, stale)
      }
      return new TargetLock(path, text)
    } catch (error) {
      if (error instanceof OperationalError) throw error
      throw new TargetWriteError(`${directory}/${LOCK_FILE}`, error)
    } finally {
      await unlink(written).catch(() => {})
    }
  }

  /** Whether it is still ours: a server that was starting as we took over a stale file may have removed it. */
  async holds(): Promise<boolean> {
    return (await readPlanted(this.#path).catch(() => undefined))?.text === this.#text
  }

  /** Leaves a file that is somebody else's. */
  async release(): Promise<void> {
    await unlinkIf(this.#path, this.#text)
  }
}

/**
 * Looks only.
 *
 * @param directoryLock 'locked': the caller holds it, so no restore is here.
 * @returns what a stale file says; undefined where there is none. @throws {TargetInUseError} @throws {TargetUnusableError}
 */
export async function refuseIfHeld(
  base: string,
  directory: string,
  directoryLock: 'locked' | 'unlocked',
): Promise<string | undefined> {
  const found = await readPlanted(`${base}/${LOCK_FILE}`)
  if (found === undefined) return undefined
  // A server is between making the file and writing it, or was killed there: PostgreSQL takes an empty one as held, too.
  if (found.text === undefined || found.text === '') throw new TargetInUseError(directory, undefined)
  const lines = found.text.split('\n')
  const pid = Math.abs(Number.parseInt(lines[0] ?? '', 10))
  if (lines[2]?.startsWith(OF_A_RESTORE) === true) {
    if (directoryLock === 'unlocked' && (await isLocked(base))) throw new TargetInUseError(directory, pid)
    return found.text
  }
  if (pid > 0 && isAlive(pid)) throw new TargetInUseError(directory, pid)
  const shmid = Number(lines[SHARED_MEMORY_LINE - 1]?.trim().split(/\s+/)[1])
  if (Number.isSafeInteger(shmid) && (await isAttached(shmid))) throw new TargetInUseError(directory, undefined)
  return found.text
}

async function linked(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw error
  }
}

async function unlinkIf(path: string, text: string): Promise<void> {
  if ((await readPlanted(path).catch(() => undefined))?.text !== text) return
  await unlink(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
  })
}

async function isLocked(directory: string): Promise<boolean> {
  await using handle = await open(directory, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW)
  return !(await lockDescriptor(handle.fd, directory, 'shared'))
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
