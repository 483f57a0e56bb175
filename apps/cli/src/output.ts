/** Standard output carries results only; everything else goes to standard error. */
import { type Problem } from '@tidemark/kernel'

export function printJson(value: unknown): void {
  process.stdout.write(
    `${JSON.stringify(value, (_key, item: unknown) => (typeof item === 'bigint' ? item.toString() : item), 2)}\n`,
  )
}

/** `label  value` lines. */
export function printFacts(facts: Readonly<Record<string, string | number | undefined>>): void {
  const shown = Object.entries(facts).filter(([, value]) => value !== undefined)
  const width = Math.max(...shown.map(([label]) => label.length))
  for (const [label, value] of shown) process.stdout.write(`${label.padEnd(width)}  ${value}\n`)
}

export function printTable(head: readonly string[], rows: readonly (readonly string[])[]): void {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0)))
  for (const row of [head, ...rows]) {
    process.stdout.write(
      `${row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd()}\n`,
    )
  }
}

/** What happened, what to check, the code; as one JSON line with `--json`. */
export function printProblem(problem: Problem, json: boolean): void {
  if (json) {
    process.stderr.write(`${JSON.stringify({ error: problem })}\n`)
    return
  }
  const hint = problem.hint.replaceAll('\n', '\n      ')
  process.stderr.write(`ERROR: ${problem.message}\nHINT: ${hint}\nCODE: ${problem.code}\n`)
}
