/**
 * `npm test`: every check there is, cheap ones first; all of them run, also when one fails.
 *
 * Writes .reports/summary.json with the totals that the runners reported; a check (format, lint, types, boundaries, knip) counts as one.
 */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

interface Totals {
  passed: number
  failed: number
  skipped: number
}

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const reports = join(root, '.reports')
const env = { ...process.env, TURBO_TELEMETRY_DISABLED: '1', DO_NOT_TRACK: '1', FORCE_COLOR: '0' }
const CHECKS: readonly (readonly [name: string, command: string, args: readonly string[]])[] = [
  ['format', 'turbo', ['run', '//#check:format']],
  ['lint', 'turbo', ['run', '//#check:lint']],
  ['types', 'turbo', ['run', '//#check:types']],
  ['unused code', 'turbo', ['run', '//#check:knip']],
  ['package boundaries', 'turbo', ['boundaries']],
]
/** Those of one stage run beside each other: each does one thing after the other, and waits a good deal. */
const STAGES = [['unit'], ['integration'], ['conformance', 'matrix'], ['e2e', 'chaos']]

function runs(command: string, args: readonly string[]): boolean {
  const { status, error } = spawnSync(command, args, { cwd: root, env, stdio: ['ignore', 'inherit', 'inherit'] })
  if (error !== undefined) process.stderr.write(`${command}: ${error.message}\n`)
  return status === 0
}

/** What it says is printed once it has ended, so that no two are mixed. */
async function runsQuietly(command: string, args: readonly string[]): Promise<boolean> {
  const child = spawn(command, args, { cwd: root, env, stdio: ['ignore', 'pipe', 'pipe'] })
  const said: Buffer[] = []
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => said.push(chunk))
  const [status] = (await once(child, 'close')) as [number | null]
  process.stdout.write(Buffer.concat(said))
  return status === 0
}

/** @returns what the runner's own report says; a run without a report is one failure. */
async function runProject(project: string): Promise<Totals> {
  const report = join(reports, `${project}.json`)
  const args = ['run', '--project', project, '--reporter=default', '--reporter=json', `--outputFile.json=${report}`]
  const clean = await runsQuietly('vitest', args)
  try {
    const { numPassedTests, numFailedTests, numPendingTests, numTodoTests } = JSON.parse(
      readFileSync(report, 'utf8'),
    ) as Record<string, number>
    const failed = numFailedTests ?? 0
    // A file that cannot be loaded, or an error outside of any test, fails the run without failing a test.
    return {
      passed: numPassedTests ?? 0,
      failed: clean ? failed : Math.max(1, failed),
      skipped: (numPendingTests ?? 0) + (numTodoTests ?? 0),
    }
  } catch {
    process.stderr.write(`project ${project} left no report\n`)
    return { passed: 0, failed: 1, skipped: 0 }
  }
}

rmSync(reports, { recursive: true, force: true })
mkdirSync(reports, { recursive: true })
const totals: Totals = { passed: 0, failed: 0, skipped: 0 }
const lines: string[] = []
const wanted = process.argv.slice(2)
const startedMs = performance.now()
for (const [name, command, args] of CHECKS) {
  if (wanted.length > 0) break
  const passed = runs(command, args)
  totals[passed ? 'passed' : 'failed'] += 1
  lines.push(`${passed ? 'ok    ' : 'FAILED'}  ${name}`)
}
const stages = wanted.length > 0 ? wanted.map((project) => [project]) : STAGES
for (const stage of stages) {
  process.stdout.write(`\n${stage.join(' and ')} …\n`)
  await Promise.all(
    stage.map(async (project) => {
      const projectMs = performance.now()
      const result = await runProject(project)
      totals.passed += result.passed
      totals.failed += result.failed
      totals.skipped += result.skipped
      const seconds = ((performance.now() - projectMs) / 1000).toFixed(0)
      lines.push(
        `${result.failed === 0 ? 'ok    ' : 'FAILED'}  ${project}: ${result.passed} passed, ${result.failed} failed, ${result.skipped} skipped in ${seconds} s`,
      )
    }),
  )
}
writeFileSync(join(reports, 'summary.json'), `${JSON.stringify(totals)}\n`)
process.stdout.write(
  `\n${lines.join('\n')}\n${((performance.now() - startedMs) / 1000).toFixed(0)} s in all: ${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped\n`,
)
process.exitCode = totals.failed === 0 && totals.passed > 0 ? 0 : 1
