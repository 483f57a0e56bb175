/** A restore under a fault; then one that nobody disturbs, where the first did not succeed. */
import type { RestoreResult } from '@tidemark/contracts'
import { type Scene, Violation, afterRestore, demand, equalTo } from '../support/aftermath.ts'
import { type Outcome, outcomeOf, restoreHere } from '../support/operate.ts'
import { landingInTarget } from './landing.ts'
import type { KeptBackup } from './library.ts'
import type { Round, Sabotage } from './round.ts'
import { differences, treeOf } from './tree.ts'

/** The files are held against their reference each time; a server is started on them in this share of rounds. */
const SHARE_STARTED = 0.2

export async function playRestore(round: Round, scene: Scene, sabotage: Sabotage | undefined): Promise<void> {
  const library = await round.bench.library()
  const kept = round.chance.pick(library.backups)
  const target = await round.newTarget(scene)
  const task = { do: 'restore', backup: kept.backupId, target, mode: 'new' } as const
  const outcome = (await round.underFault(scene, task, landingInTarget(target))) as Outcome<RestoreResult>
  await sabotage?.(scene)
  await afterRestore(outcome, target, equalTo(kept.contents), lookAgainst(round, kept))
  if (outcome.kind === 'succeeded') round.restored += 1
  else await restoreAgainst(round, scene, kept)
}

/** Undisturbed, into a new directory. @param repository read from there alone. */
export async function restoreAgainst(round: Round, scene: Scene, kept: KeptBackup, repository?: string): Promise<void> {
  const target = await scene.fleet.newTarget(`restored-${kept.backupId}`)
  const from = repository === undefined ? {} : { repository }
  const outcome = await outcomeOf(restoreHere(scene.fleet.config, kept.backupId, target, from))
  if (outcome.kind !== 'succeeded')
    throw new Violation(`restore of the listed ${kept.backupId}: ${JSON.stringify(outcome)}`)
  await afterRestore(outcome, target, equalTo(kept.contents), lookAgainst(round, kept))
  round.restored += 1
}

export function lookAgainst({ chance }: Round, kept: KeptBackup): (target: string) => Promise<boolean> {
  return async (target) => {
    const differing = differences(await treeOf(target), kept.tree)
    demand(differing.length === 0, 'the restored files are not those of the backup', differing.slice(0, 20))
    return chance.next() < SHARE_STARTED
  }
}
