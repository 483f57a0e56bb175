import { type ChildProcess, spawn } from 'node:child_process'
import { mkdir, mkdtemp, readFile, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { TargetInUseError } from '../errors.ts'
import { inspectTarget } from './target-facts.ts'
import { TargetLock, refuseIfHeld } from './target-lock.ts'
import { TargetRoot } from './target-root.ts'

const PROCESSES = 4
const ROUNDS = 25
/** No process has it: the kernel's largest is 2^22. */
const NOBODY = 4_194_305

let folder = ''
const children: ChildProcess[] = []
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tidemark-lock-'))
})
afterEach(async () => {
  for (const child of children.splice(0)) child.kill('SIGKILL')
  await rm(folder, { recursive: true })
})

/** Another process, which answers each directory with `held` or a code, and holds it until the next line. */
class Holder {
  readonly #child: ChildProcess
  readonly #answers: AsyncIterator<string>
  constructor() {
    const module = new URL('./hold-target.test-support.ts', import.meta.url).pathname
    this.#child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', module], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    children.push(this.#child)
    if (this.#child.stdout === null) throw new TypeError('no pipe')
    this.#answers = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]()
  }

  async hold(directory: string): Promise<string> {
    this.#child.stdin?.write(`${directory}\n`)
    return String((await this.#answers.next()).value)
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  async kill(): Promise<void> {
    const ended = new Promise((resolve) => this.#child.once('exit', resolve))
    this.#child.kill('SIGKILL')
    await ended
  }
}

test('of many processes that find one stale lock, exactly one takes it over', async () => {
  const holders = Array.from({ length: PROCESSES }, () => new Holder())
  for (let round = 0; round < ROUNDS; round += 1) {
    const directory = join(folder, String(round))
    await mkdir(directory)
    await writeFile(join(directory, 'postmaster.pid'), `${NOBODY}\n${directory}\n`)
    const answers = await Promise.all(holders.map((holder) => holder.hold(directory)))
    expect(answers.toSorted()).toEqual([...Array.from({ length: PROCESSES - 1 }, () => 'TARGET_IN_USE'), 'held'])
    const winner = holders[answers.indexOf('held')]
    expect((await readFile(join(directory, 'postmaster.pid'), 'utf8')).split('\n')[0]).toBe(String(winner?.pid))
  }
})

test('a restore that was killed leaves no lock, also where its number is that of a living process by now', async () => {
  const holder = new Holder()
  expect(await holder.hold(folder)).toBe('held')
  await expect(refuseIfHeld(folder, folder, 'unlocked')).rejects.toThrow(TargetInUseError)
  await holder.kill()
  const text = await readFile(join(folder, 'postmaster.pid'), 'utf8')
  await writeFile(join(folder, 'postmaster.pid'), text.replace(/^\d+/, String(process.ppid)))

  expect(await refuseIfHeld(folder, folder, 'unlocked')).toMatch(/tidemark restore/)
  const root = await TargetRoot.take(folder, undefined, {
    seen: await stat(folder, { bigint: true }),
    above: undefined,
  })
  const lock = await TargetLock.acquire(folder, folder)
  expect(await lock.holds()).toBe(true)
  expect(await readdir(folder)).toEqual(['postmaster.pid'])
  await lock.release()
  await root.release()
  expect(await readdir(folder)).toEqual([])
})

test('a server’s lock with our own number is not ours: in containers every first process has the same', async () => {
  const lines = [process.pid, folder, 1_700_000_000, 5432, '/tmp', 'localhost', '  5432001         7', 'ready   ']
  await writeFile(join(folder, 'postmaster.pid'), `${lines.join('\n')}\n`)
  await expect(TargetLock.acquire(folder, folder)).rejects.toThrow(TargetInUseError)
  expect(await readFile(join(folder, 'postmaster.pid'), 'utf8')).toContain('ready')
})

test('a lock that somebody else has replaced is neither held nor taken away', async () => {
  const lock = await TargetLock.acquire(folder, folder)
  await rm(join(folder, 'postmaster.pid'))
  expect(await lock.holds()).toBe(false)
  await writeFile(join(folder, 'postmaster.pid'), 'of a server')
  expect(await lock.holds()).toBe(false)
  await lock.release()
  expect(await readFile(join(folder, 'postmaster.pid'), 'utf8')).toBe('of a server')
})

test('a pipe or a link in the place of lock or marker is neither waited for nor followed', async () => {
  const [pipes, links] = [join(folder, 'pipes'), join(folder, 'links')]
  for (const directory of [pipes, links]) await mkdir(directory)
  const make = spawn('mkfifo', [join(pipes, 'postmaster.pid'), join(folder, 'tidemark_restore.json')])
  await new Promise((resolve) => make.once('exit', resolve))
  await writeFile(join(folder, 'elsewhere'), `${NOBODY}\n`)
  await symlink(join(folder, 'elsewhere'), join(links, 'postmaster.pid'))
  for (const directory of [pipes, links])
    await expect(refuseIfHeld(directory, directory, 'locked')).rejects.toThrow(TargetInUseError)
  // Found as it looks for the marker of an unfinished restore.
  const owner = process.getuid?.() === 0 ? { uid: 12_345, gid: 12_345 } : undefined
  await expect(inspectTarget(folder, owner)).rejects.toMatchObject({ code: 'TARGET_NOT_EMPTY' })
  await expect(inspectTarget(folder, owner, 'resume')).rejects.toMatchObject({ code: 'TARGET_NOT_RESUMABLE' })
})
