import { type Operation } from '@tidemark/contracts'
import { formatBytes, formatDuration } from '@tidemark/kernel'

export function heading(text: string): void {
  process.stdout.write(`\n== ${text}\n`)
}

export function say(text: string): void {
  process.stdout.write(`   ${text}\n`)
}

/** Prints an operation's progress: on a terminal one line that changes, elsewhere a line per phase. */
export function progressPrinter(): (operation: Operation) => void {
  let phase = ''
  return ({ progress, state }) => {
    if (progress === undefined) return
    const total = progress.bytesTotal === undefined ? '' : ` of ${formatBytes(progress.bytesTotal)}`
    const rate = progress.bytesPerSecond === undefined ? '' : `, ${formatBytes(progress.bytesPerSecond)}/s`
    const eta = progress.etaSeconds === undefined ? '' : `, ETA ${formatDuration(progress.etaSeconds * 1000)}`
    const line = `${progress.phase.padEnd(18)} ${formatBytes(progress.bytesDone)}${total}${rate}${eta}`
    const changed = progress.phase !== phase
    phase = progress.phase
    const ended = state === 'succeeded'
    if (process.stdout.isTTY) process.stdout.write(`\r\u001b[2K   ${line}${ended ? '\n' : ''}`)
    else if (changed || (progress.bytesTotal !== undefined && progress.bytesDone > 0)) say(line)
  }
}

export function printTable(rows: readonly (readonly [string, string])[]): void {
  const width = Math.max(...rows.map(([label]) => label.length))
  for (const [label, value] of rows) say(`${label.padEnd(width)}  ${value}`)
}
