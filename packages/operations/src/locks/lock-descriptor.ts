/**
 * flock(2), by way of flock(1): Node has no call for it.
 *
 * The lock belongs to the open file description, which the program inherits and this process keeps: it is still held when the program has
 * ended, and goes when the last descriptor is closed, which a killed process cannot avoid. So there are no stale ones, and process ids of
 * other containers play no part.
 */
import { spawn } from 'node:child_process'
import { TargetUnusableError } from '../errors.ts'

const HELD_BY_ANOTHER = 1

/**
 * @param kind several can hold it 'shared'. @param waitMs how long to wait for it, at most. @param path for errors.
 * @returns false where somebody else holds it. @throws {TargetUnusableError} the program is not there, or the file system has no locks.
 */
export async function lockDescriptor(
  descriptor: number,
  path: string,
  kind: 'exclusive' | 'shared' = 'exclusive',
  waitMs = 0,
): Promise<boolean> {
  const { promise, resolve, reject } = Promise.withResolvers<boolean>()
  const wait = waitMs === 0 ? ['-n'] : ['-w', String(waitMs / 1000)]
  const program = spawn('flock', [...wait, kind === 'shared' ? '-s' : '-x', '3'], {
    stdio: ['ignore', 'ignore', 'ignore', descriptor],
  })
  program.once('error', (cause) => reject(unlockable(path, cause.message, cause)))
  program.once('close', (code, signal) => {
    if (code === 0) return resolve(true)
    if (code === HELD_BY_ANOTHER) return resolve(false)
    reject(unlockable(path, `flock ended with ${signal ?? `exit code ${code}`}`))
  })
  return await promise
}

function unlockable(path: string, why: string, cause?: unknown): TargetUnusableError {
  const hint = 'install flock (package util-linux), and use a file system that has locks'
  return new TargetUnusableError(path, `it cannot be locked: ${why}`, hint, cause)
}
