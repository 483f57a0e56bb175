import { enableCompileCache } from 'node:module'
import { fileURLToPath } from 'node:url'
import { type TestS3, random } from '@tidemark/testkit'
import { ChaosBench } from './bench.ts'
import { type RoundOptions, type RoundReport, runRound } from './round.ts'

export interface PlayOptions extends RoundOptions {
  /** Rounds at once, each on a bench of its own. */
  readonly jobs: number
  readonly onReport: (line: string) => void
}

/** Programs start several times a round: what is compiled once is kept for all of them. */
export function keepCompiled(): void {
  const folder = (process.env['NODE_COMPILE_CACHE'] ??= fileURLToPath(
    new URL('../../node_modules/.cache/tidemark-chaos', import.meta.url),
  ))
  enableCompileCache(folder)
}

export function roundSeeds(seed: number, rounds: number): number[] {
  const chance = random(seed)
  return Array.from({ length: rounds }, () => chance.integer(0, 2 ** 31 - 1))
}

/** Ends early, at the first violated promise. */
export async function playRounds(s3: TestS3, seeds: readonly number[], options: PlayOptions): Promise<RoundReport[]> {
  const reports: RoundReport[] = []
  const left = [...seeds]
  const lane = async (): Promise<void> => {
    await using bench = await ChaosBench.start(s3)
    while (reports.every(({ violation }) => violation === undefined)) {
      const seed = left.shift()
      if (seed === undefined) return
      const report = await runRound(bench, seed, options)
      reports.push(report)
      options.onReport(lineOf(report, reports.length, seeds.length))
    }
  }
  await Promise.all(Array.from({ length: Math.min(options.jobs, seeds.length) }, lane))
  return reports
}

function lineOf(report: RoundReport, number: number, of: number): string {
  const { seed, engine, operation, fault, storage, load, notes, outcomes, code, landings, ms } = report
  const { violation, evidence, again } = report
  const line = [
    `${String(number).padStart(String(of).length)}/${of}`,
    `round ${seed}`.padEnd(17),
    `${operation} by ${engine} on ${storage}${load ? ' under load' : ''}`.padEnd(36),
    `${fault}${notes.length === 0 ? '' : ` (${notes.join('; ')})`}:`,
    `${outcomes.join(', ')}${code === undefined ? '' : ` ${code}`}`,
    ...(landings.length === 0 ? [] : [`struck ${landings.join(', ')}`]),
    `${(ms / 1000).toFixed(1)} s`,
  ].join('  ')
  if (violation === undefined) return line
  return `${line}\nVIOLATION: ${violation}\nevidence: ${evidence}\nagain: ${again}`
}
