import { spawn } from 'node:child_process'
import type { OsUser } from './unprivileged-user.ts'

export interface ToolOutput {
  readonly stdout: string
  readonly stderr: string
}

export interface RunOptions {
  readonly input?: string | Uint8Array
  /** Added to the environment of this process. */
  readonly env?: Readonly<Record<string, string>>
  readonly as?: OsUser | undefined
  readonly cwd?: string
}

/** Runs a program to its end. Rejects with its standard error when it does not exit with 0. */
export function runTool(path: string, args: readonly string[], options: RunOptions = {}): Promise<ToolOutput> {
  return new Promise((resolve, reject) => {
    const child = spawn(path, args, {
      env: { ...process.env, ...options.env },
      cwd: options.cwd,
      stdio: ['pipe', 'pipe', 'pipe'],
      ...(options.as && { uid: options.as.uid, gid: options.as.gid }),
    })
    const stdout: Buffer[] = []
    const stderr: Buffer[] = []
    child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk))
    child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk))
    child.once('error', reject)
    child.once('close', (code, signal) => {
      const output = { stdout: Buffer.concat(stdout).toString('utf8'), stderr: Buffer.concat(stderr).toString('utf8') }
      if (code === 0) return resolve(output)
      const ending = signal === null ? `exit code ${code}` : `signal ${signal}`
      reject(new Error(`${path} ${args.join(' ')}: ${ending}\n${output.stderr || output.stdout}`))
    })
    child.stdin.on('error', () => {}) // a tool that stops reading early says why on stderr
    child.stdin.end(options.input)
  })
}
