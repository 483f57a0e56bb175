/** One operation in a process of its own, with short deadlines and, if wanted, a wrong clock: something to kill. Says on standard output how it ended. */
import { writeSync } from 'node:fs'
import { loadConfig } from '@tidemark/config'
import { systemClock } from '@tidemark/kernel'
import type { TargetMode } from '@tidemark/operations'
import { backupHere, copyHere, outcomeOf, restoreHere } from './operate.ts'

export type ProcessOrder = {
  /** The wall clock is wrong by this much … */
  readonly clockOffsetMs?: number
  /** … from the moment that so many bytes are copied. */
  readonly clockWrongFromBytes?: number
} & (
  | { readonly do: 'backup'; readonly operationId: string; readonly requestedAt: string }
  | { readonly do: 'restore'; readonly backup: string; readonly target: string; readonly mode?: TargetMode }
  | { readonly do: 'copy'; readonly to: string }
)

const order = JSON.parse(process.argv[2] ?? '') as ProcessOrder
const { clockOffsetMs = 0, clockWrongFromBytes = 0 } = order
let copied = 0
const running = {
  clock: { ...systemClock, now: () => new Date(Date.now() + (copied >= clockWrongFromBytes ? clockOffsetMs : 0)) },
  progress: ({ phase, bytesDone }: { phase: string; bytesDone: number }) => {
    if (phase === 'copy') copied = bytesDone
  },
}
const config = loadConfig()
const outcome = await outcomeOf<unknown>(carryOut())
writeSync(1, `${JSON.stringify(outcome)}\n`)

function carryOut(): Promise<unknown> {
  switch (order.do) {
    case 'backup':
      return backupHere(config, {
        ...running,
        operationId: order.operationId,
        requestedAt: new Date(order.requestedAt),
      })
    case 'restore':
      return restoreHere(config, order.backup, order.target, { ...running, mode: order.mode ?? 'new' })
    case 'copy':
      return copyHere(config, order.to, running)
    default:
      return order satisfies never
  }
}
