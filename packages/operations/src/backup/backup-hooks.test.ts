import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { existsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Logger, OperationalError, silentLogger, systemClock } from '@tidemark/kernel'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { HookFailedError } from '../errors.ts'
import { type Hook, withHooks } from './backup-hooks.ts'

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tidemark-hooks-'))
})
afterEach(() => rm(folder, { recursive: true }))

const facts = { cluster: 'main', operationId: 'op-1' }
const committed = { record: { verdict: 'intact' as const } }

async function hook(script: string, timeoutMs = 30_000, args: string[] = []): Promise<Hook> {
  const command = join(folder, `hook-${Math.random()}`)
  await writeFile(command, `#!/bin/sh\n${script}\n`)
  await chmod(command, 0o755)
  return { command, args, timeoutMs }
}

function deps(logger: Logger = silentLogger, signal = new AbortController().signal) {
  return { clock: systemClock, logger, signal }
}

/** Keeps what is logged. */
function recorder(): { logger: Logger; lines: { level: string; facts: Record<string, unknown> }[] } {
  const lines: { level: string; facts: Record<string, unknown> }[] = []
  const at = (level: string) => (facts: object) => void lines.push({ level, facts: { ...facts } })
  const logger: Logger = {
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    child: () => logger,
  }
  return { logger, lines }
}

test('hooks are told about the backup, and nothing of the worker; arguments are no shell text', async () => {
  vi.stubEnv('TIDEMARK_PG_PASSWORD', 'secret')
  const [before, after] = [join(folder, 'before'), join(folder, 'after')]
  const hooks = {
    before: await hook(`env > ${before}; printf '%s' "$1" > ${folder}/argument`, 30_000, ['$(touch oops) ; x']),
    after: await hook(`env > ${after}`),
  }
  const result = await withHooks(hooks, facts, deps(), async (onBackupId) => {
    expect(existsSync(before)).toBe(true)
    expect(existsSync(after)).toBe(false)
    onBackupId('0123456789abcdef')
    return committed
  })
  vi.unstubAllEnvs()

  expect(result).toBe(committed)
  expect(await names(before)).toEqual([
    'LANG=C.UTF-8',
    expect.stringMatching(/^PATH=/),
    'TIDEMARK_CLUSTER=main',
    'TIDEMARK_HOOK=before',
    'TIDEMARK_OPERATION_ID=op-1',
  ])
  expect(await names(after)).toEqual(
    expect.arrayContaining(['TIDEMARK_BACKUP_ID=0123456789abcdef', 'TIDEMARK_HOOK=after', 'TIDEMARK_OUTCOME=intact']),
  )
  expect(await readFile(join(folder, 'argument'), 'utf8')).toBe('$(touch oops) ; x')
})

test.each([
  ['exits with an error', 'exit 3', /exit code 3/],
  ['dies of a signal', 'kill -ABRT $$', /SIGABRT/],
])('a hook before the backup that %s: no backup is begun', async (_, script, said) => {
  const work = vi.fn<() => Promise<typeof committed>>()
  const running = withHooks({ before: await hook(script) }, facts, deps(), work)
  await expect(running).rejects.toThrow(HookFailedError)
  await expect(running).rejects.toThrow(said)
  expect(work).not.toHaveBeenCalled()
})

test('a hook that is not there is named', async () => {
  const running = withHooks(
    { before: { command: join(folder, 'none'), args: [], timeoutMs: 1000 } },
    facts,
    deps(),
    vi.fn(),
  )
  await expect(running).rejects.toThrow(/none: it cannot be run \(ENOENT\)/)
})

test('a hook after the backup that fails is reported, and the backup stays', async () => {
  const { logger, lines } = recorder()
  const after = await hook('echo too bad; exit 1')
  expect(await withHooks({ after }, facts, deps(logger), async () => committed)).toBe(committed)
  expect(lines).toContainEqual(
    expect.objectContaining({ level: 'error', facts: expect.objectContaining({ event: 'hook-failed' }) }),
  )
  expect(lines.find(({ level }) => level === 'warn')?.facts).toMatchObject({
    output: 'too bad\n',
    problem: 'exit code 1',
  })
})

test('a backup that fails runs the hook after it with the code, and fails with its own error', async () => {
  class Broken extends OperationalError {
    override readonly code = 'BROKEN'
    override readonly retry = 'never'
  }
  const broken = new Broken('it broke', { hint: '-' })
  const after = await hook(`echo "$TIDEMARK_OUTCOME $TIDEMARK_ERROR_CODE" > ${folder}/told`)
  await expect(withHooks({ after }, facts, deps(), () => Promise.reject(broken))).rejects.toBe(broken)
  expect(await readFile(join(folder, 'told'), 'utf8')).toBe('failed BROKEN\n')
})

test('a hook that takes too long is killed with all that it started', async () => {
  const before = await hook(`sh -c 'echo $$ > ${folder}/child; trap "" TERM; sleep 600' & wait`, 300)
  await expect(withHooks({ before }, facts, deps(), vi.fn())).rejects.toThrow(/longer than 300 ms/)
  const child = (await readFile(join(folder, 'child'), 'utf8')).trim()
  await vi.waitUntil(() => !runs(child), { timeout: 10_000, interval: 20 })
})

test('a backup that is stopped stops the hook before it', async () => {
  const stop = new AbortController()
  const before = await hook(`touch ${folder}/begun; exec sleep 600`)
  const running = withHooks({ before }, facts, deps(silentLogger, stop.signal), vi.fn())
  running.catch(() => {})
  await vi.waitUntil(() => existsSync(join(folder, 'begun')), { timeout: 10_000, interval: 20 })
  stop.abort()
  await expect(running).rejects.toThrow(/hook before the backup/)
})

test('what a hook prints is bounded', async () => {
  const { logger, lines } = recorder()
  await withHooks({ before: await hook('yes | head -c 3000000') }, facts, deps(logger), async () => committed)
  const [line] = lines
  expect(String(line?.facts['output']).length).toBe(8192)
  expect(Number(line?.facts['outputBytes'])).toBeGreaterThan(8192)
})

/** The environment that a hook wrote down, without what its shell adds. */
async function names(file: string): Promise<string[]> {
  return (await readFile(file, 'utf8'))
    .split('\n')
    .filter((line) => line !== '' && !/^(?:PWD|OLDPWD|SHLVL|_)=/.test(line))
    .toSorted()
}

function runs(pid: string): boolean {
  try {
    process.kill(Number(pid), 0)
    return true
  } catch {
    return false
  }
}
