/**
 * `npm run chaos`: rounds of backup, restore, copy or resumed restore under faults, until one promise does not hold or all rounds are done.
 *
 * TIDEMARK_CHAOS_ROUNDS (100), TIDEMARK_CHAOS_SEED (random, printed), TIDEMARK_CHAOS_JOBS (1: rounds at once),
 * TIDEMARK_CHAOS_ONLY=<round seed> plays one round again, TIDEMARK_CHAOS_FAULT=<name> and TIDEMARK_CHAOS_OPERATION=<name> draw only that.
 * Exit code 1 at the first violation; its evidence is kept and named.
 */
import { randomInt } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { startS3 } from '@tidemark/testkit'
import { FAULTS, OPERATIONS } from './faults.ts'
import { keepCompiled, playRounds, roundSeeds } from './play-rounds.ts'
import { summaryOf, textOf } from './summary.ts'

const { env } = process
const seed = env['TIDEMARK_CHAOS_SEED'] === undefined ? randomInt(2 ** 31) : Number(env['TIDEMARK_CHAOS_SEED'])
const rounds = Number(env['TIDEMARK_CHAOS_ROUNDS'] ?? '100')
const jobs = Number(env['TIDEMARK_CHAOS_JOBS'] ?? '1')
const only = env['TIDEMARK_CHAOS_ONLY']
for (const [name, value] of Object.entries({ SEED: seed, ROUNDS: rounds, JOBS: jobs, ONLY: Number(only ?? 0) }))
  if (!Number.isSafeInteger(value) || value < 0) throw new Error(`TIDEMARK_CHAOS_${name} is to be a whole number`)

const fault = env['TIDEMARK_CHAOS_FAULT']
if (fault !== undefined && !FAULTS.some(({ name }) => name === fault))
  throw new Error(`TIDEMARK_CHAOS_FAULT is to be one of: ${FAULTS.map(({ name }) => name).join('; ')}`)
const operation = OPERATIONS.find((name) => name === env['TIDEMARK_CHAOS_OPERATION'])
if (env['TIDEMARK_CHAOS_OPERATION'] !== undefined && operation === undefined)
  throw new Error(`TIDEMARK_CHAOS_OPERATION is to be one of: ${OPERATIONS.join(', ')}`)
if (
  FAULTS.every(({ name, operations }) => name !== (fault ?? name) || !operations.includes(operation ?? operations[0]!))
)
  throw new Error(`${fault} is no fault of ${operation}`)

const evidenceFolder = fileURLToPath(new URL('../../.reports/chaos', import.meta.url))
await mkdir(evidenceFolder, { recursive: true })
process.stdout.write(only === undefined ? `TIDEMARK_CHAOS_SEED=${seed}, ${rounds} rounds\n` : `one round: ${only}\n`)

keepCompiled()
await using s3 = await startS3()
const startedMs = performance.now()
const reports = await playRounds(s3, only === undefined ? roundSeeds(seed, rounds) : [Number(only)], {
  evidenceFolder,
  fault,
  operation,
  jobs,
  onReport: (line) => process.stdout.write(`${line}\n`),
})
const summary = summaryOf(seed, reports, performance.now() - startedMs)
await writeFile(join(evidenceFolder, 'summary.json'), `${JSON.stringify({ ...summary, reports }, undefined, 1)}\n`)
await writeFile(join(evidenceFolder, 'summary.txt'), textOf(summary))
process.stdout.write(`\n${textOf(summary)}`)
process.exitCode = summary.violations.length === 0 ? 0 : 1
