import { spawn } from 'node:child_process'
import { chown, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { ScratchFolder } from './scratch-folder.ts'

let folder = ''
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tidemark-scratches-'))
})
afterEach(() => rm(folder, { recursive: true }))

/** A process that makes one with something in it, and waits to be killed. */
async function killedWithOne(): Promise<void> {
  const module = new URL('./scratch-folder.ts', import.meta.url).href
  const program = `
    const { ScratchFolder } = await import('${module}')
    const { writeFileSync } = await import('node:fs')
    const scratch = await ScratchFolder.create('verify', ${JSON.stringify(folder)})
    writeFileSync(scratch.path + '/files', 'much')
    console.log('there')
    setInterval(() => {}, 1e6)`
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await new Promise((resolve) => child.stdout.once('data', resolve))
  expect(await readdir(folder)).toHaveLength(1)
  const ended = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGKILL')
  await ended
}

test('what a killed process left is taken away by the next, and what a living one uses is not', async () => {
  await killedWithOne()
  const [debris] = await readdir(folder)
  await using first = await ScratchFolder.create('verify', folder)
  expect(await readdir(folder)).not.toContain(debris)
  await writeFile(join(first.path, 'files'), '')
  {
    await using second = await ScratchFolder.create('verify', folder)
    expect(await readdir(first.path)).toEqual(['files'])
    expect(await readdir(folder)).toHaveLength(2)
    expect(second.path).not.toBe(first.path)
  }
  expect(await readdir(folder)).toHaveLength(1)
})

test.runIf(process.getuid?.() === 0)('what belongs to somebody else, or is none, is left alone', async () => {
  await mkdir(join(folder, 'tidemark-verify-theirs'))
  await chown(join(folder, 'tidemark-verify-theirs'), 12_345, 12_345)
  await mkdir(join(folder, 'tidemark-verifying'))
  await writeFile(join(folder, 'tidemark-verify-file'), '')
  await using _ours = await ScratchFolder.create('verify', folder)
  expect(await readdir(folder)).toHaveLength(4)
})
