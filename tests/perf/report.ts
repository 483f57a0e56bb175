import { formatBytes } from '@tidemark/kernel'
import type { Figures } from './meter.ts'

/** Ours and a peer's, one right after the other, round for round. */
export interface Pair {
  readonly what: 'backup' | 'restore'
  readonly ours: string
  readonly peer: string
  readonly oursRuns: Figures[]
  readonly peerRuns: Figures[]
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2
}

/** Median of the ratios of neighbouring runs: what else the machine does falls on both. */
export function ratio({ oursRuns, peerRuns }: Pair, of: 'wall' | 'cpu' | 'serverCpu'): number {
  return median(oursRuns.map((own, i) => own[of] / (peerRuns[i]?.[of] ?? Number.NaN)))
}

/** A Markdown table: every contestant's figures, then ours beside its peer. */
export function renderReport(pairs: readonly Pair[], stored: ReadonlyMap<string, number>): string {
  const runs = new Map<string, Figures[]>()
  for (const { what, ours, peer, oursRuns, peerRuns } of pairs) {
    runs.set(`${what}, ${ours}`, [...(runs.get(`${what}, ${ours}`) ?? []), ...oursRuns])
    runs.set(`${what}, ${peer}`, [...(runs.get(`${what}, ${peer}`) ?? []), ...peerRuns])
  }
  const lines = [
    '| | wall s | CPU s | server CPU s | peak RSS, tree | largest process | stored |',
    '|---|---|---|---|---|---|---|',
  ]
  for (const [name, figures] of [...runs].toSorted(([a], [b]) => a.localeCompare(b))) {
    const seconds = (of: 'wall' | 'cpu' | 'serverCpu'): string => median(figures.map((one) => one[of])).toFixed(2)
    const peak = (of: 'treeRss' | 'processRss'): string => formatBytes(Math.max(...figures.map((one) => one[of])))
    const bytes = name.startsWith('backup') ? stored.get(name.slice('backup, '.length)) : undefined
    lines.push(
      `| ${name} | ${seconds('wall')} | ${seconds('cpu')} | ${seconds('serverCpu')} | ${peak('treeRss')} | ${peak('processRss')} | ${bytes === undefined ? '' : formatBytes(bytes)} |`,
    )
  }
  lines.push('', '| ours ÷ peer, medians of neighbouring runs | wall | CPU with server | stored |', '|---|---|---|---|')
  for (const pair of pairs) {
    const { what, ours, peer, oursRuns, peerRuns } = pair
    const both = median(
      oursRuns.map((own, i) => (own.cpu + own.serverCpu) / ((peerRuns[i]?.cpu ?? 0) + (peerRuns[i]?.serverCpu ?? 0))),
    )
    const size = what === 'backup' ? (stored.get(ours) ?? Number.NaN) / (stored.get(peer) ?? Number.NaN) : undefined
    lines.push(
      `| ${what}: ${ours} ÷ ${peer} | ${ratio(pair, 'wall').toFixed(2)} | ${both.toFixed(2)} | ${size === undefined ? '' : size.toFixed(3)} |`,
    )
  }
  return `${lines.join('\n')}\n`
}
