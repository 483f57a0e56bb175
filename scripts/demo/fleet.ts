/** The demo's processes: each app as its own process, as in production, on free ports and in one temporary folder. */
import { type ChildProcess, spawn } from 'node:child_process'
import { createWriteStream, readFileSync } from 'node:fs'
import { once } from 'node:events'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))
const READY_MS = 60_000

export interface App extends AsyncDisposable {
  readonly name: string
  readonly pid: number
  /** What the app said when it was ready. */
  readonly ready: Readonly<Record<string, unknown>>
  /** Peak resident memory so far, in bytes. */
  peakMemoryBytes(): number
  /** CPU seconds so far, all threads. */
  cpuSeconds(): number
}

/** Starts `apps/<name>` and waits until it says that it is ready. Its log goes to `<folder>/<name>.log`. */
export async function startApp(name: string, folder: string, env: NodeJS.ProcessEnv): Promise<App> {
  const child = spawn(process.execPath, [join(root, 'apps', name, 'src', 'main.ts')], {
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const log = createWriteStream(join(folder, `${name}.log`))
  child.stderr.pipe(log)
  const ready = await readyLine(child, name, join(folder, `${name}.log`))
  child.stdout.resume()
  const { pid = 0 } = child
  return {
    name,
    pid,
    ready,
    peakMemoryBytes: () =>
      Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) * 1024,
    cpuSeconds: () => cpuSecondsOf(pid),
    async [Symbol.asyncDispose]() {
      if (child.exitCode !== null || child.signalCode !== null) return
      const gone = once(child, 'exit')
      child.kill('SIGTERM')
      await gone
    },
  }
}

async function readyLine(child: ChildProcess, name: string, log: string): Promise<Record<string, unknown>> {
  if (child.stdout === null) throw new Error('the app has no standard output')
  const lines = createInterface({ input: child.stdout })
  const timeout = setTimeout(() => child.kill('SIGKILL'), READY_MS)
  try {
    for await (const line of lines) {
      const parsed = parseJson(line)
      if (parsed?.['ready'] === true) return parsed
    }
  } finally {
    clearTimeout(timeout)
  }
  throw new Error(`${name} did not become ready; its log:\n${readFileSync(log, 'utf8').slice(-4000)}`)
}

function parseJson(line: string): Record<string, unknown> | undefined {
  try {
    return JSON.parse(line) as Record<string, unknown>
  } catch {
    return undefined
  }
}

/** utime and stime of proc(5), in clock ticks of 10 ms. */
function cpuSecondsOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
  return (Number(fields[11]) + Number(fields[12])) / 100
}
