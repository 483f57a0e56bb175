import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

test('a file list of 100,000 files, and one of a tenth of a terabyte, is planned and compared within the stated memory', async () => {
  const script = fileURLToPath(new URL('../../scale/scale.ts', import.meta.url))
  const env = { ...process.env, TIDEMARK_SCALE_FILES: '100000', TIDEMARK_SCALE_TERABYTES: '0.1' }
  const { stdout } = await promisify(execFile)(process.execPath, [script], { env })
  expect(stdout).toMatch(/100000 files, 100000 extents in 13 packs/)
  expect(stdout.match(/peak RSS \d+ MiB, ceiling 300 MiB/g)).toHaveLength(2)
})
