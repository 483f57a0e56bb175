/** Progress on standard error: a bar that redraws itself on a terminal, a plain line now and then elsewhere. */
import { type Progress, type ReportProgress, formatBytes, formatDuration } from '@tidemark/kernel'

const REDRAW_MS = 100
const PLAIN_LINE_MS = 5000
const BAR_CELLS = 24
/** Seconds that the shown rate looks back. */
const RATE_WINDOW_MS = 5000

export interface ProgressDisplay extends Disposable {
  readonly report: ReportProgress
}

export function showProgress(
  stream: NodeJS.WriteStream = process.stderr,
  nowMs: () => number = () => performance.now(),
): ProgressDisplay {
  const terminal = stream.isTTY
  let phase = ''
  let drawnAtMs = -Infinity
  let marks: { ms: number; bytes: number }[] = []
  let onLine = false

  const report = (progress: Progress): void => {
    const ms = nowMs()
    const newPhase = progress.phase !== phase
    if (newPhase) {
      if (onLine) stream.write('\n')
      onLine = false
      phase = progress.phase
      marks = []
    }
    marks.push({ ms, bytes: progress.bytesDone })
    marks = marks.filter((mark, i) => mark.ms >= ms - RATE_WINDOW_MS || i === marks.length - 1)
    const done = progress.bytesTotal !== undefined && progress.bytesDone >= progress.bytesTotal
    if (!newPhase && !done && ms - drawnAtMs < (terminal ? REDRAW_MS : PLAIN_LINE_MS)) return
    drawnAtMs = ms
    const line = describe(progress, marks)
    if (terminal) {
      stream.write(`\r\u001b[2K${line.slice(0, Math.max(20, stream.columns - 1))}`)
      onLine = true
    } else stream.write(`${line}\n`)
  }
  return {
    report,
    [Symbol.dispose]: () => {
      if (onLine) stream.write('\n')
    },
  }
}

function describe(progress: Progress, marks: readonly { ms: number; bytes: number }[]): string {
  const { phase, bytesDone, bytesTotal, bytesStored, files } = progress
  const first = marks[0]
  const last = marks.at(-1)
  const elapsedMs = first === undefined || last === undefined ? 0 : last.ms - first.ms
  const rate =
    first === undefined || last === undefined || elapsedMs < 200
      ? undefined
      : ((last.bytes - first.bytes) / elapsedMs) * 1000
  const parts = [phase.padEnd(9)]
  if (bytesTotal !== undefined && bytesTotal > 0) {
    const share = Math.min(1, bytesDone / bytesTotal)
    const filled = Math.round(share * BAR_CELLS)
    parts.push(
      `[${'#'.repeat(filled)}${'.'.repeat(BAR_CELLS - filled)}] ${(share * 100).toFixed(0).padStart(3)}%`,
      `${formatBytes(bytesDone)} of ${formatBytes(bytesTotal)}`,
    )
  } else if (bytesDone > 0) parts.push(formatBytes(bytesDone))
  if (rate !== undefined && rate > 0) parts.push(`${formatBytes(rate)}/s`)
  if (rate !== undefined && rate > 0 && bytesTotal !== undefined && bytesTotal > bytesDone)
    parts.push(`ETA ${formatDuration(((bytesTotal - bytesDone) / rate) * 1000)}`)
  if (bytesStored !== undefined && bytesStored > 0) parts.push(`stored ${formatBytes(bytesStored)}`)
  if (files !== undefined && bytesTotal === undefined) parts.push(`${files} files`)
  return parts.join('  ')
}
