import type { RoundReport } from './round.ts'

export interface Summary {
  readonly seed: number
  readonly rounds: number
  readonly seconds: number
  /** By fault, how often each outcome. */
  readonly faults: Readonly<Record<string, Readonly<Record<string, number>>>>
  readonly engines: Readonly<Record<string, number>>
  readonly operations: Readonly<Record<string, number>>
  readonly underLoad: number
  /** How operations failed under faults, by the code of the cause. */
  readonly codes: Readonly<Record<string, number>>
  /** Listed backups whose contents were verified … */
  readonly verified: number
  /** … and copies that were restored, started and compared equal. */
  readonly restored: number
  readonly violations: readonly { readonly seed: number; readonly violation: string }[]
}

export function summaryOf(seed: number, reports: readonly RoundReport[], ms: number): Summary {
  const faults: Record<string, Record<string, number>> = {}
  for (const { fault, outcome } of reports) {
    const row = (faults[fault] ??= {})
    row[outcome] = (row[outcome] ?? 0) + 1
  }
  return {
    seed,
    rounds: reports.length,
    seconds: Math.round(ms / 1000),
    faults,
    engines: count(reports.map(({ engine }) => engine)),
    operations: count(reports.map(({ operation }) => operation)),
    underLoad: reports.filter(({ load }) => load).length,
    codes: count(reports.flatMap(({ code }) => (code === undefined ? [] : [code]))),
    verified: sum(reports.map(({ verified }) => verified)),
    restored: sum(reports.map(({ restored }) => restored)),
    violations: reports.flatMap(({ seed, violation }) => (violation === undefined ? [] : [{ seed, violation }])),
  }
}

export function textOf(summary: Summary): string {
  return [
    `seed ${summary.seed}: ${summary.rounds} rounds in ${summary.seconds} s, ${summary.underLoad} of them under write load`,
    `operations: ${counts(summary.operations)}; engines: ${counts(summary.engines)}`,
    ...Object.entries(summary.faults).map(([name, row]) => `  ${name.padEnd(32)} ${counts(row)}`),
    `failures by cause: ${counts(summary.codes) || 'none'}`,
    `${summary.verified} backups verified, ${summary.restored} copies restored, started and compared equal`,
    `violations: ${summary.violations.length === 0 ? 'none' : ''}`,
    ...summary.violations.map(({ seed, violation }) => `  round ${seed}: ${violation.split('\n')[0]}`),
    '',
  ].join('\n')
}

function counts(row: Readonly<Record<string, number>>): string {
  return Object.entries(row)
    .map(([name, n]) => `${n} ${name}`)
    .join(', ')
}

function count(names: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const name of names) counts[name] = (counts[name] ?? 0) + 1
  return counts
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, n) => total + n, 0)
}
