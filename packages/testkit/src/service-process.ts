import { spawn, type ChildProcess } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { once } from 'node:events'
import { guardProcess, isRunning, releaseProcess } from './reaper.ts'
import type { OsUser } from './unprivileged-user.ts'
import { until } from './until.ts'

export interface ServiceCommand {
  readonly path: string
  readonly args: readonly string[]
  readonly as: OsUser | undefined
  readonly cwd: string
  /** Standard output and error are appended here. */
  readonly logFile: string
  readonly env?: Readonly<Record<string, string>>
}

/** One server in the foreground, a child of ours, logging to a file. */
export class ServiceProcess {
  readonly pid: number
  readonly #child: ChildProcess
  readonly #logFile: string

  constructor(command: ServiceCommand) {
    const log = openSync(command.logFile, 'a', 0o644)
    try {
      this.#child = spawn(command.path, command.args, {
        cwd: command.cwd,
        env: { ...process.env, ...command.env },
        stdio: ['ignore', log, log],
        // Its own process group: Ctrl-C goes to the test, which ends its services in order.
        detached: true,
        ...(command.as && { uid: command.as.uid, gid: command.as.gid }),
      })
    } finally {
      closeSync(log)
    }
    this.#logFile = command.logFile
    this.#child.on('error', () => {})
    this.#child.unref()
    const pid = this.#child.pid
    if (pid === undefined) throw new Error(`${command.path} could not be started`)
    this.pid = pid
    guardProcess(pid)
    this.#child.once('exit', () => releaseProcess(pid))
  }

  get ended(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null
  }

  get exitCode(): number | null {
    return this.#child.exitCode
  }

  /** Polls `isReady`; fails at once, with the end of the log, when the process has ended. */
  async ready(what: string, isReady: () => Promise<boolean>, timeoutMs = 60_000): Promise<void> {
    let crashed = false
    try {
      await until(
        async () => {
          crashed = this.ended
          return crashed || (await isReady())
        },
        { what, timeoutMs, everyMs: 30 },
      )
    } catch (error) {
      this.signal('SIGKILL')
      throw new Error(`${what} did not become ready; end of its log:\n${this.logTail()}`, { cause: error })
    }
    if (crashed) throw new Error(`${what} ended with code ${this.exitCode}; end of its log:\n${this.logTail()}`)
  }

  signal(signal: NodeJS.Signals): void {
    if (!this.ended) this.#child.kill(signal)
  }

  /** Sends `signal` and waits for the end; SIGKILL after `graceMs`. */
  async end(signal: NodeJS.Signals, graceMs = 60_000): Promise<void> {
    if (this.ended) return
    const ended = once(this.#child, 'exit')
    this.#child.ref()
    this.signal(signal)
    const timer = setTimeout(() => this.signal('SIGKILL'), graceMs)
    await ended
    clearTimeout(timer)
  }

  /** SIGKILL for this process and all its descendants, and waits until none is left. */
  async killTree(): Promise<void> {
    const tree = [this.pid, ...descendantsOf(this.pid)]
    for (const pid of tree) {
      try {
        process.kill(pid, 'SIGKILL')
      } catch {
        // ended by itself
      }
    }
    await this.end('SIGKILL')
    await until(() => tree.every((pid) => !isRunning(pid)), { what: 'killed processes to be gone', everyMs: 10 })
  }

  logTail(bytes = 4000): string {
    return readFileSync(this.#logFile, 'utf8').slice(-bytes)
  }
}

function descendantsOf(pid: number): number[] {
  let children: number[]
  try {
    children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number)
  } catch {
    return []
  }
  return children.flatMap((child) => [child, ...descendantsOf(child)])
}
