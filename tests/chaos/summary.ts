import type { Landing } from './landing.ts'
import type { RoundReport } from './round.ts'

type Counts = Readonly<Record<string, number>>

export interface Summary {
  readonly seed: number
  readonly rounds: number
  readonly seconds: number
  /** By operation and fault, how often each outcome. */
  readonly faults: Readonly<Record<string, Readonly<Record<string, Counts>>>>
  /** Rounds, and their mean time in milliseconds. */
  readonly operations: Readonly<Record<string, { readonly rounds: number; readonly meanMs: number }>>
  readonly engines: Counts
  readonly underLoad: number
  /** By operation, where kills struck. */
  readonly kills: Readonly<Record<string, Readonly<Record<Landing, number>>>>
  /** How operations failed under faults, by the code of the cause. */
  readonly codes: Counts
  /** Listed backups whose contents were verified … */
  readonly verified: number
  /** … copies that were restored and compared equal … */
  readonly restored: number
  /** … and objects of dead attempts that sweeps took away. */
  readonly swept: number
  readonly violations: readonly { readonly seed: number; readonly violation: string; readonly again: string }[]
}

export function summaryOf(seed: number, reports: readonly RoundReport[], ms: number): Summary {
  const faults: Record<string, Record<string, Record<string, number>>> = {}
  const kills: Record<string, Record<Landing, number>> = {}
  const times: Record<string, number[]> = {}
  for (const { operation, fault, outcomes, landings, ms: roundMs } of reports) {
    ;(times[operation] ??= []).push(roundMs)
    const row = ((faults[operation] ??= {})[fault] ??= {})
    for (const outcome of outcomes) row[outcome] = (row[outcome] ?? 0) + 1
    const struck = (kills[operation] ??= { before: 0, inside: 0, after: 0 })
    for (const landing of landings) struck[landing] += 1
  }
  return {
    seed,
    rounds: reports.length,
    seconds: Math.round(ms / 1000),
    faults,
    operations: Object.fromEntries(
      Object.entries(times).map(([name, all]) => [
        name,
        { rounds: all.length, meanMs: Math.round(sum(all) / all.length) },
      ]),
    ),
    engines: count(reports.map(({ engine }) => engine)),
    underLoad: reports.filter(({ load }) => load).length,
    kills,
    codes: count(reports.flatMap(({ code }) => (code === undefined ? [] : [code]))),
    verified: sum(reports.map(({ verified }) => verified)),
    restored: sum(reports.map(({ restored }) => restored)),
    swept: sum(reports.map(({ swept }) => swept)),
    violations: reports.flatMap(({ seed, violation, again }) =>
      violation === undefined ? [] : [{ seed, violation, again }],
    ),
  }
}

export function textOf(summary: Summary): string {
  const { operations, faults, kills, violations } = summary
  return [
    `seed ${summary.seed}: ${summary.rounds} rounds in ${summary.seconds} s, ${summary.underLoad} of them under write load; by ${counts(summary.engines)}`,
    ...Object.entries(operations).flatMap(([operation, { rounds, meanMs }]) => [
      `${operation}: ${rounds} rounds of ${(meanMs / 1000).toFixed(1)} s; kills: ${counts(kills[operation] ?? {})}`,
      ...Object.entries(faults[operation] ?? {}).map(([name, row]) => `  ${name.padEnd(32)} ${counts(row)}`),
    ]),
    `failures by cause: ${counts(summary.codes) || 'none'}`,
    `${summary.verified} backups verified, ${summary.restored} restored and compared equal, ${summary.swept} objects of dead attempts swept`,
    `violations: ${violations.length === 0 ? 'none' : ''}`,
    ...violations.flatMap(({ violation, again }) => [`  ${violation.split('\n')[0]}`, `  again: ${again}`]),
    '',
  ].join('\n')
}

function counts(row: Counts): string {
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
