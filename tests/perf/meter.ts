import { execFile } from 'node:child_process'
import { readFile, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const run = promisify(execFile)
const METER = fileURLToPath(new URL('meter.py', import.meta.url))
/** USER_HZ: fixed at 100 for user space on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100

/** What one command took. Seconds and bytes. */
export interface Figures {
  readonly wall: number
  /** CPU of the command and what it started. */
  readonly cpu: number
  /** CPU of the database server meanwhile. */
  readonly serverCpu: number
  /** Largest sum of resident sizes over the process tree. */
  readonly treeRss: number
  /** High-water mark of the largest process. */
  readonly processRss: number
}

export type Command = readonly [program: string, ...args: string[]]

/** Runs commands beside one database server. The page cache's dirty pages are written out first, so that nobody pays for another's. */
export class Meter {
  readonly #serverPid: () => number | undefined

  constructor(serverPid: () => number | undefined) {
    this.#serverPid = serverPid
  }

  /** @throws with what the command wrote to standard error when it fails. */
  async measure(command: Command, env: NodeJS.ProcessEnv = process.env): Promise<Figures> {
    await run('sync')
    const before = await this.#serverSeconds()
    const { stdout } = await run('python3', [METER, ...command], { env, maxBuffer: 1 << 24 })
    const figures = JSON.parse(stdout) as Omit<Figures, 'serverCpu'>
    return { ...figures, serverCpu: (await this.#serverSeconds()) - before }
  }

  /** CPU seconds of the postmaster, its children that ended, and those that live. */
  async #serverSeconds(): Promise<number> {
    const pid = this.#serverPid()
    if (pid === undefined) return 0
    const children = (await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')).trim().split(' ')
    const own = await secondsOf(String(pid), true)
    const living = await Promise.all(children.filter((child) => child !== '').map((child) => secondsOf(child, false)))
    return living.reduce((sum, seconds) => sum + seconds, own)
  }
}

/** proc_pid_stat(5): fields 14–17, counted after the command's closing bracket. */
async function secondsOf(pid: string, withEnded: boolean): Promise<number> {
  try {
    const text = await readFile(`/proc/${pid}/stat`, 'utf8')
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
    const ticks = fields.slice(11, withEnded ? 15 : 13).reduce((sum, field) => sum + Number(field), 0)
    return ticks / TICKS_PER_SECOND
  } catch {
    return 0 // ended in between: the postmaster has its seconds now
  }
}

/** The sum of the sizes of all files below a folder. */
export async function bytesBelow(folder: string): Promise<number> {
  const names = await readdir(folder, { recursive: true, withFileTypes: true })
  const sizes = await Promise.all(
    names.filter((entry) => entry.isFile()).map(async (entry) => (await stat(join(entry.parentPath, entry.name))).size),
  )
  return sizes.reduce((sum, size) => sum + size, 0)
}
