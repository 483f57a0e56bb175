/** A backup under a fault, into a new repository set; whatever is listed afterwards is verified, restored, started and compared. */
import { type TestPostgres } from '@tidemark/testkit'
import type { BackupResult } from '@tidemark/contracts'
import { parseLsn } from '@tidemark/kernel'
import { type Scene, Violation, afterBackup, afterRestore, equalTo, tolerateDebris } from '../support/aftermath.ts'
import { type Outcome, backupHere, listHere, outcomeOf, restoreHere } from '../support/operate.ts'
import { fingerprint } from '../support/sample-cluster.ts'
import { landingInRepositories } from './landing.ts'
import { TickLoad, wrongTicks } from './load.ts'
import type { Round, Sabotage } from './round.ts'

/** As `fingerprint` names it. */
const TICKS = 'public.ticks'

export async function playBackup(round: Round, scene: Scene, sabotage: Sabotage | undefined): Promise<void> {
  const { plan, bench, chance } = round
  const { config } = scene.fleet
  const before = await fingerprint(bench.source)
  const load = plan.load ? round.stack.use(await TickLoad.begin(bench.source)) : undefined

  const restoreAndCompare = async (backupId: string, repository?: string): Promise<void> => {
    const target = await scene.fleet.newTarget(`restored-${backupId}`)
    const from = repository === undefined ? {} : { repository }
    const outcome = await outcomeOf(restoreHere(config, backupId, target, from))
    if (outcome.kind !== 'succeeded')
      throw new Violation(`restore of the listed ${backupId}: ${JSON.stringify(outcome)}`)
    await afterRestore(outcome, target, async (copy) => {
      await equalTo(before, load === undefined ? [] : [TICKS])(copy)
      if (load !== undefined) await demandTicks(scene, copy, load, backupId)
    })
    round.restored += 1
  }

  const probe = landingInRepositories(config, Object.keys(config.repositories), 1)
  const outcome = (await round.underFault(scene, { do: 'backup' }, probe)) as Outcome<BackupResult>
  await load?.end()
  if (plan.fault.leavesDebris === true) await tolerateDebris(scene)
  await sabotage?.(scene)
  const listing = await afterBackup(scene, outcome)
  const known = new Set(listing.flatMap(({ backups }) => backups.map(({ backupId }) => backupId)))
  round.verified += known.size
  for (const backupId of known) {
    const holders = listing.filter(({ backups }) => backups.some((backup) => backup.backupId === backupId))
    await restoreAndCompare(backupId, chance.pick(holders).repository)
  }
  if (outcome.kind === 'succeeded' && chance.next() < 0.7) return
  // Whatever happened, the next one works.
  const clean = await outcomeOf(backupHere(config))
  if (clean.kind !== 'succeeded') throw new Violation(`a clean backup after the fault: ${JSON.stringify(clean)}`)
  await afterBackup(scene, clean, known)
  round.verified += 1
  await restoreAndCompare(clean.result.backupId)
}

async function demandTicks(scene: Scene, copy: TestPostgres, load: TickLoad, backupId: string): Promise<void> {
  const listing = await listHere(scene.fleet.config)
  const found = listing.flatMap(({ backups }) => backups).find((backup) => backup.backupId === backupId)
  if (found === undefined || !('record' in found)) throw new Violation(`${backupId} is not listed any more`)
  const wrong = await wrongTicks(copy, load, parseLsn(found.record.stopLsn))
  if (wrong !== undefined) throw new Violation(`rows written under load: ${JSON.stringify(wrong)}`)
}
