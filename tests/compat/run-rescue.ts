/** Runs scripts/rescue/tidemark_rescue.py as an operator would: never as root, the key in the environment, nothing beside it. */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFileSync, readdirSync } from 'node:fs'
import { mkdir, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { type TemporaryFolder, unprivilegedUser } from '@tidemark/testkit'
import type { Expected } from './expected.ts'
import { runProgram } from './run-program.ts'

const FIXTURES = new URL('fixtures/', import.meta.url)
export const DRAFT = '0-draft'
export const READABLE = readdirSync(FIXTURES).filter((name) => name !== DRAFT)
/** The key of fixture-key.ts, as an operator would hold it. Anybody has it. */
export const FIXTURE_KEY = createHash('sha256').update('tidemark fixture test key').digest()
export const SCRIPT = new URL('../../scripts/rescue/tidemark_rescue.py', import.meta.url).pathname
export const EXIT = { usage: 2, key: 3, unknown: 4, damaged: 5, target: 6, noPoint: 7 }
const MAIN = 'if __name__ =='

export interface Rescued {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** '' is no key. */
export function rescue(repository: string, key: string, ...args: string[]): Promise<Rescued> {
  return rescueWith('', repository, key, ...args)
}

/** The script with some Python put in before it starts: to stand for a host, or for somebody else on it. */
export async function rescueWith(host: string, repository: string, key: string, ...args: string[]): Promise<Rescued> {
  const script = readFileSync(SCRIPT, 'utf8')
  const user = unprivilegedUser()
  // Dropped by Python itself, with all modules loaded: root's Python may lie where nobody else can read.
  const drop = user
    ? `import encodings.ascii, encodings.unicode_escape\nos.setgroups([])\nos.setgid(${user.gid})\nos.setuid(${user.uid})\n`
    : ''
  const program = Buffer.from(script.replace(MAIN, () => `${host}\n${drop}${MAIN}`))
  const command = [`BACKUP_ENCRYPTION_KEY=${key}`, 'python3', '-B', '-', '--repository', repository, ...args]
  const { code, stdout, stderr } = await runProgram('env', command, program)
  return { code, stdout: stdout.toString(), stderr }
}

/** The script runs as another user where the tests run as root. */
export function giveAway(directory: string): void {
  const user = unprivilegedUser()
  if (user) execFileSync('chown', ['--recursive', '--no-dereference', `${user.uid}:${user.gid}`, directory])
}

export async function unpack(folder: TemporaryFolder, version: string, name = 'repository'): Promise<string> {
  const directory = folder.join(name)
  await mkdir(directory)
  const archive = new URL(`${version}/repository.tar`, FIXTURES).pathname
  execFileSync('tar', ['--extract', '--no-same-owner', '--file', archive, '--directory', directory])
  giveAway(directory)
  return directory
}

export function expectedOf(version: string): Expected {
  return JSON.parse(readFileSync(new URL(`${version}/expected.json`, FIXTURES), 'utf8')) as Expected
}

export async function objectsOf(repository: string): Promise<string[]> {
  const entries = await readdir(repository, { recursive: true, withFileTypes: true })
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .toSorted()
}
