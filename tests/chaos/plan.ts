/** What a round is to be. Everything random comes from the round's seed. */
import { type Random, random } from '@tidemark/testkit'
import type { Engine } from './engines.ts'
import { FAULTS, type FaultKind, OPERATIONS, type Operation, type Storage } from './faults.ts'

const SHARE_UNDER_LOAD = 0.25
/** How often each is drawn, beside the others. */
const WEIGHTS: Readonly<Record<Operation, number>> = { backup: 4, restore: 2, copy: 3, resume: 3 }

export interface RoundPlan {
  readonly seed: number
  readonly engine: Engine
  readonly operation: Operation
  readonly fault: FaultKind
  readonly storage: Storage
  /** Rows are written during the backup. */
  readonly load: boolean
}

/** What else than the seed a plan follows from: given again, the same seed gives the same round. */
export interface Choice {
  /** Only faults of this name. */
  readonly fault?: string | undefined
  readonly operation?: Operation | undefined
}

export function planRound(seed: number, choice: Choice = {}): { plan: RoundPlan; chance: Random } {
  const chance = random(seed)
  const isRoot = process.getuid?.() === 0
  const possible = FAULTS.filter(({ disk, name }) => (isRoot || disk === undefined) && name === (choice.fault ?? name))
  const operation = chance.pick(
    OPERATIONS.filter(
      (one) => one === (choice.operation ?? one) && possible.some(({ operations }) => operations.includes(one)),
    ).flatMap((one) => times(one, WEIGHTS[one])),
  )
  const fault = chance.pick(
    possible.filter(({ operations }) => operations.includes(operation)).flatMap((kind) => times(kind, kind.weight)),
  )
  const plan: RoundPlan = {
    seed,
    fault,
    operation,
    engine: chance.pick(fault.engines),
    storage: chance.pick(operation === 'copy' ? (fault.storageOfCopies ?? fault.storage) : fault.storage),
    load: operation === 'backup' && chance.next() < SHARE_UNDER_LOAD,
  }
  return { plan, chance }
}

/** The environment that plays it again. */
export function againAs(seed: number, { fault, operation }: Choice): string {
  const given = [
    `TIDEMARK_CHAOS_ONLY=${seed}`,
    ...(operation === undefined ? [] : [`TIDEMARK_CHAOS_OPERATION=${operation}`]),
    ...(fault === undefined ? [] : [`TIDEMARK_CHAOS_FAULT='${fault}'`]),
  ]
  return `${given.join(' ')} npm run chaos`
}

function times<T>(one: T, n: number): T[] {
  return Array.from({ length: n }, () => one)
}
