/** A short campaign of its own seed in every run, and the proof that a campaign can fail. `npm run chaos` is the long one. */
import { readFile, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { TemporaryFolder, type TestS3, seed, sharedS3 } from '@tidemark/testkit'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { ChaosBench } from './bench.ts'
import { keepCompiled, roundSeeds } from './play-rounds.ts'
import { type Choice, planRound } from './plan.ts'
import type { Operation } from './faults.ts'
import { type RoundOptions, type RoundReport, type Sabotage, runRound } from './round.ts'

/** One round each. Every operation is there twice. */
const ALWAYS = [
  { operation: 'backup', fault: 'kill -9' },
  { operation: 'backup', fault: 'PostgreSQL killed or restarted' },
  { operation: 'restore', fault: 'kill -9' },
  { operation: 'restore', fault: 'S3 errors that pass' },
  { operation: 'copy', fault: 'kill -9' },
  { operation: 'copy', fault: 'kill -9' },
  { operation: 'resume', fault: 'kill -9' },
  { operation: 'resume', fault: 'kill -9' },
  {},
] as const satisfies readonly Choice[]

let s3: TestS3
let bench: ChaosBench
let evidence: TemporaryFolder
let first: number
beforeAll(async () => {
  first = seed()
  keepCompiled()
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
    `round ${roundSeed}: ${report.operation} by ${report.engine}, ${report.fault}: ${report.outcomes.join(', ')} ${report.code ?? ''}\n`,
  )
  return report
}

test.each(
  ALWAYS.map((choice: Choice, i) => [choice.operation ?? 'anything', choice.fault ?? 'any fault', i, choice] as const),
)('%s, %s, round %i: every promise holds', async (_operation, _fault, i, choice) => {
  const [roundSeed = 0] = roundSeeds(first + i, 1)
  const { violation, again } = await play(roundSeed, choice)
  expect(violation === undefined ? 'held' : `${violation}\nagain: ${again}`).toBe('held')
})

test('the same seed plans the same round', () => {
  for (const roundSeed of roundSeeds(first, 20)) {
    const [one, two] = [planRound(roundSeed), planRound(roundSeed)]
    expect(one.plan).toEqual(two.plan)
    expect(one.chance.next()).toBe(two.chance.next())
  }
})

test('a campaign can fail: one byte changed in a stored pack is a violation, with evidence and the way to see it again', async () => {
  const report = await playSabotaged('backup', changePack('local'))
  expect(report.violation).toMatch(/is listed in local and does not verify/)
  expect(report.violation).toMatch(/pack-00001/)
  const kept = await readdir(report.evidence ?? '')
  expect(kept.toSorted()).toEqual(['files', 'postgres.log', 'round.json', 'said.txt'])
  expect(report.again).toContain(`TIDEMARK_CHAOS_ONLY=${report.seed} TIDEMARK_CHAOS_OPERATION=backup`)
})

test('so is one in a copy, and one in a restored file', async () => {
  const copied = await playSabotaged('copy', changePack('copy'))
  expect(copied.violation).toMatch(/a listed copy does not verify/)
  const resumed = await playSabotaged('resume', ({ fleet }) => changeOneByte(fleet.folder.join('target/global/1262')))
  expect(resumed.violation).toMatch(/the restored files are not those of the backup: \[\n "global\/1262: file/)
})

/** An operation that no fault disturbs, and then the sabotage. */
async function playSabotaged(operation: Operation, sabotage: Sabotage): Promise<RoundReport> {
  const choice = { fault: 'none', operation }
  const quiet = roundSeeds(first, 1000).find((roundSeed) => {
    const { plan } = planRound(roundSeed, choice)
    return plan.storage === 'file' && plan.engine === 'process'
  })
  const report = await play(quiet ?? 0, { ...choice, sabotage })
  expect(report.outcomes).toEqual(['succeeded'])
  return report
}

function changePack(repository: string): Sabotage {
  return async ({ fleet }) => {
    const root = fleet.folder.join(repository)
    const names = await readdir(root, { recursive: true })
    await changeOneByte(join(root, names.find((name) => name.endsWith('/pack-00001')) ?? ''))
  }
}

async function changeOneByte(path: string): Promise<void> {
  const bytes = await readFile(path)
  bytes[bytes.length >> 1]! ^= 1
  await writeFile(path, bytes)
}
