/**
 * The promise that a test leaves nothing running and no folder behind, however it ends.
 *
 * In the normal case every service is ended by its own `await using`. A process that exits without
 * that (a crash, process.exit) kills what is left in its exit hook. A process that is itself
 * SIGKILLed cannot: a small shell, which notices by the end of its standard input, does it then.
 * Only pids and folders named here are touched, and a pid only while it still has the same command name.
 */
import { spawn } from 'node:child_process'
import { readFileSync, rmSync } from 'node:fs'
import type { Writable } from 'node:stream'
import { fileURLToPath } from 'node:url'

const running = new Map<number, string>()
const folders = new Set<string>()
let reaper: Writable | undefined

/** From now on this process does not outlive us. */
export function guardProcess(pid: number): void {
  const command = commandOf(pid)
  if (command === undefined) return
  running.set(pid, command)
  tell(`+ ${pid} ${command}`)
}

/** It has ended: the pid may be somebody else's soon. */
export function releaseProcess(pid: number): void {
  if (running.delete(pid)) tell(`- ${pid}`)
}

export function guardFolder(path: string): void {
  if (/\s/.test(path)) return
  folders.add(path)
  tell(`d ${path}`)
}

export function releaseFolder(path: string): void {
  if (folders.delete(path)) tell(`r ${path}`)
}

/** Linux's name for the process, at most 15 characters; undefined when there is none. */
export function commandOf(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim()
  } catch {
    return undefined
  }
}

export function isRunning(pid: number): boolean {
  try {
    // A zombie has ended; it only waits for its parent to notice.
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}

function tell(line: string): void {
  if (reaper === undefined) {
    const script = fileURLToPath(new URL('../scripts/reaper.sh', import.meta.url))
    const child = spawn('/bin/sh', [script], { stdio: ['pipe', 'ignore', 'ignore'], detached: true, cwd: '/' })
    child.unref()
    child.stdin.on('error', () => {})
    ;(child.stdin as unknown as { unref?: () => void }).unref?.()
    reaper = child.stdin
    process.once('exit', killWhatIsLeft)
  }
  reaper.write(`${line}\n`)
}

function killWhatIsLeft(): void {
  for (const [pid, command] of running) {
    if (commandOf(pid) !== command) continue
    try {
      process.kill(pid, command === 'postgres' ? 'SIGQUIT' : 'SIGKILL')
    } catch {
      // ended between the look and the signal
    }
  }
  for (const folder of folders) {
    try {
      rmSync(folder, { recursive: true, force: true })
    } catch {
      // a service that is still writing: the reaper removes it a moment later
    }
  }
}
