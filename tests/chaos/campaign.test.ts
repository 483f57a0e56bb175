/** A short campaign of its own seed in every run, and the proof that a campaign can fail. `npm run chaos` is the long one. */
import { readFile, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { TemporaryFolder, type TestS3, seed, sharedS3 } from '@tidemark/testkit'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Scene } from '../support/aftermath.ts'
import { ChaosBench } from './bench.ts'
import { roundSeeds } from './play-rounds.ts'
import { type RoundOptions, planRound, runRound } from './round.ts'

/** One round each. */
const ALWAYS = [
  'kill -9',
  'connection cut',
  'PostgreSQL killed or restarted',
  'S3 errors that pass',
  'Redis wiped',
  'twins',
]

let s3: TestS3
let bench: ChaosBench
let evidence: TemporaryFolder
let first: number
beforeAll(async () => {
  first = seed()
  evidence = await TemporaryFolder.create('chaos-evidence')
  s3 = await sharedS3()
  bench = await ChaosBench.start(s3)
})
afterAll(async () => {
  await bench?.[Symbol.asyncDispose]()
  await s3?.[Symbol.asyncDispose]()
  await evidence?.[Symbol.asyncDispose]()
})

async function play(roundSeed: number, options: Partial<RoundOptions> = {}) {
  const report = await runRound(bench, roundSeed, { evidenceFolder: evidence.path, ...options })
  process.stderr.write(
    `round ${roundSeed}: ${report.operation} by ${report.engine}, ${report.fault}: ${report.outcome} ${report.code ?? ''}\n`,
  )
  return report
}

test.each([...ALWAYS, undefined, undefined].map((fault, i) => [fault ?? 'any fault', i, fault] as const))(
  '%s, round %i: every promise holds',
  async (_title, i, fault) => {
    const [roundSeed = 0] = roundSeeds(first + i, 1)
    const { violation } = await play(roundSeed, { fault })
    expect(violation).toBeUndefined()
  },
)

test('the same seed plans the same round', () => {
  for (const roundSeed of roundSeeds(first, 20)) {
    const [one, two] = [planRound(roundSeed), planRound(roundSeed)]
    expect(one.plan).toEqual(two.plan)
    expect(one.chance.next()).toBe(two.chance.next())
  }
})

test('a campaign can fail: one byte changed in a stored pack is a violation, with evidence and the way to see it again', async () => {
  const onFile = roundSeeds(first, 1000).find((roundSeed) => {
    const { plan } = planRound(roundSeed, { fault: 'none' })
    return plan.storage === 'file' && plan.operation === 'backup' && plan.engine === 'process'
  })
  const report = await play(onFile ?? 0, { fault: 'none', sabotage: changeOneByte })
  expect(report.outcome).toBe('succeeded')
  expect(report.violation).toMatch(/is listed in local and does not verify/)
  expect(report.violation).toMatch(/pack-00001/)
  const kept = await readdir(report.evidence ?? '')
  expect(kept.toSorted()).toEqual(['files', 'postgres.log', 'round.json', 'said.txt'])
})

async function changeOneByte({ fleet }: Scene): Promise<void> {
  const root = fleet.folder.join('local')
  const names = await readdir(root, { recursive: true })
  const pack = join(root, names.find((name) => name.endsWith('/pack-00001')) ?? '')
  const bytes = await readFile(pack)
  bytes[bytes.length >> 1]! ^= 1
  await writeFile(pack, bytes)
}
