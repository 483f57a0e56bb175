import { spawn } from 'node:child_process'

export interface ProgramOutput {
  readonly code: number | null
  readonly stdout: Buffer
  readonly stderr: string
}

/** Runs a program that any Debian has; a missing one fails the test with its name, since a skip would prove nothing. */
export function runProgram(program: string, args: readonly string[], input: Uint8Array): Promise<ProgramOutput> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] })
    const out: Buffer[] = []
    const err: Buffer[] = []
    child.on('error', (cause: NodeJS.ErrnoException) => {
      reject(cause.code === 'ENOENT' ? new Error(`this test needs ${program}: install it`, { cause }) : cause)
    })
    child.stdout.on('data', (chunk: Buffer) => out.push(chunk))
    child.stderr.on('data', (chunk: Buffer) => err.push(chunk))
    // A program that refuses its input early closes the pipe; its exit code tells.
    child.stdin.on('error', () => {})
    child.stdin.end(input)
    child.on('close', (code) =>
      resolve({ code, stdout: Buffer.concat(out), stderr: Buffer.concat(err).toString().trim() }),
    )
  })
}
