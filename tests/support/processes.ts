/** Our own programs as child processes of a test. None outlives it. */
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import type { Readable, Writable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { type OsUser, until } from '@tidemark/testkit'

const running = new Set<Program>()
process.once('exit', () => {
  for (const program of running) program.signal('SIGKILL')
})

export interface ProgramOptions {
  readonly env: Readonly<Record<string, string>>
  readonly cwd: string
  readonly as?: OsUser | undefined
  readonly input?: string | Uint8Array
  /** Standard input stays open until `endInput`. */
  readonly openInput?: true
}

/** Where whoever runs the tests has set one: programs that start often start faster. */
function compileCache(): Record<string, string> {
  const folder = process.env['NODE_COMPILE_CACHE']
  return folder === undefined ? {} : { NODE_COMPILE_CACHE: folder }
}

export interface Ending {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

export class Program implements AsyncDisposable {
  readonly pid: number
  readonly ended: Promise<Ending>
  stdout = ''
  stderr = ''
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>
  readonly #stdout: Buffer[] = []

  /** @param script relative to the root of the project; run by the Node that runs the test. */
  constructor(script: string, args: readonly string[], { env, cwd, as, input, openInput }: ProgramOptions) {
    const path = fileURLToPath(new URL(`../../${script}`, import.meta.url))
    this.#child = spawn(process.execPath, [path, ...args], {
      cwd,
      env: { PATH: process.env['PATH'] ?? '', ...compileCache(), ...env },
      stdio: ['pipe', 'pipe', 'pipe'],
      ...(as && { uid: as.uid, gid: as.gid }),
    })
    if (this.#child.pid === undefined) throw new Error(`${script} could not be started`)
    this.pid = this.#child.pid
    running.add(this)
    this.#child.stdout.on('data', (chunk: Buffer) => {
      this.#stdout.push(chunk)
      this.stdout += chunk.toString()
    })
    this.#child.stderr.on('data', (chunk: Buffer) => (this.stderr += chunk.toString()))
    this.#child.stdin.on('error', () => {})
    if (openInput !== true) this.#child.stdin.end(input)
    this.ended = once(this.#child, 'close').then(([code, signal]) => {
      running.delete(this)
      return { code: code as number | null, signal: signal as NodeJS.Signals | null }
    })
  }

  endInput(): void {
    this.#child.stdin.end()
  }

  get outputBytes(): Buffer {
    return Buffer.concat(this.#stdout)
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name)
  }

  async end(name: NodeJS.Signals): Promise<Ending> {
    this.signal(name)
    return await this.ended
  }

  /** The first line of standard output as JSON; throws with the log when the program ends before. */
  async readyLine(timeoutMs = 60_000): Promise<Record<string, unknown>> {
    let over = false
    void this.ended.then(() => (over = true))
    const line = await until(() => over || this.stdout.split('\n', 2).length === 2, {
      timeoutMs,
      everyMs: 20,
      what: 'a ready line',
    }).then(() => this.stdout.split('\n')[0] ?? '')
    if (line === '') throw new Error(`the program ended before it was ready:\n${this.stderr}`)
    return JSON.parse(line) as Record<string, unknown>
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end('SIGKILL')
  }
}
