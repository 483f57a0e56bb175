import { randomBytes } from 'node:crypto'
import { chmod, chown, mkdir, realpath, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { guardFolder, releaseFolder } from './reaper.ts'
import { unprivilegedUser } from './unprivileged-user.ts'

/**
 * A folder under os.tmpdir() that is gone after `await using`.
 *
 * Mode 0755, so that a server running as another user can reach its own part of it.
 */
export class TemporaryFolder implements AsyncDisposable {
  readonly path: string
  private constructor(path: string) {
    this.path = path
  }

  static async create(name = 'test'): Promise<TemporaryFolder> {
    const path = join(await realpath(tmpdir()), `tidemark-${name}-${randomBytes(4).toString('hex')}`)
    await mkdir(path)
    await chmod(path, 0o755)
    guardFolder(path)
    return new TemporaryFolder(path)
  }

  join(...parts: string[]): string {
    return join(this.path, ...parts)
  }

  /** A sub-folder that the OS user who runs test servers owns (the current user, unless that is root). Mode 0700. */
  async serverFolder(name: string): Promise<string> {
    const path = this.join(name)
    await mkdir(path, { mode: 0o700 })
    const user = unprivilegedUser()
    if (user) await chown(path, user.uid, user.gid)
    return path
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.path, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 })
    releaseFolder(this.path)
  }
}
