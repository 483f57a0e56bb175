/**
 * Restores that are broken off once or several times, in a new directory or over an older restore, files being damaged in between; and one
 * that goes on. In the end each file is that of the backup.
 */
import { chown, readFile, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { RestoreResult } from '@tidemark/contracts'
import type { TargetMode } from '@tidemark/operations'
import { unprivilegedUser } from '@tidemark/testkit'
import { type Scene, Violation, afterRestore, demand, equalTo, namesItsCause } from '../support/aftermath.ts'
import { type Outcome, outcomeOf, restoreHere } from '../support/operate.ts'
import { landingInTarget } from './landing.ts'
import type { KeptBackup } from './library.ts'
import { meddle } from './meddle.ts'
import { lookAgainst } from './play-restore.ts'
import type { Round, Sabotage } from './round.ts'
import { differences, treeOf } from './tree.ts'

const MARKER = 'tidemark_restore.json'
const LOCK = 'postmaster.pid'

export async function playResume(round: Round, scene: Scene, sabotage: Sabotage | undefined): Promise<void> {
  const { chance } = round
  const { config } = scene.fleet
  const library = await round.bench.library()
  const [kept, other] = chance.shuffle(library.backups)
  if (kept === undefined || other === undefined) throw new RangeError('a library of less than two')
  const target = await round.newTarget(scene)
  const outside = await scene.fleet.newTarget('outside')
  const precious = join(outside, 'precious')
  let mode: TargetMode = 'new'
  if (chance.next() < 0.3) {
    await restoreHere(config, other.backupId, target)
    round.notes.push('over a restore of another backup')
    if (chance.next() < 0.5) round.notes.push(await meddle(target, precious, chance))
    mode = 'delta'
  }
  const attempts = chance.integer(1, 3)
  let last: Outcome<RestoreResult> | undefined
  for (let attempt = 1; attempt <= attempts; attempt += 1) {
    const task = { do: 'restore', backup: kept.backupId, target, mode } as const
    last = (await round.underFault(scene, task, landingInTarget(target))) as Outcome<RestoreResult>
    if (last.kind === 'succeeded') break
    if (last.kind === 'failed') namesItsCause(last)
    mode = await nextMode(round, target, kept, mode)
    if (mode === 'resume' && chance.next() < 0.5) round.notes.push(await meddle(target, precious, chance))
  }
  if (last?.kind !== 'succeeded') {
    last = await outcomeOf(restoreHere(config, kept.backupId, target, { mode }))
    if (last.kind !== 'succeeded') throw new Violation(`--${mode} after the fault: ${JSON.stringify(last)}`)
  }
  await sabotage?.(scene)
  await afterRestore(last, target, equalTo(kept.contents), lookAgainst(round, kept))
  round.restored += 1
  const left = (await readFile(precious, 'utf8').catch(() => 'untouched')) === 'untouched'
  demand(left, 'a file outside of the target was written to', precious)
}

/** How a restore that ended before its end is gone on with; as an operator would see it from what lies there. */
async function nextMode(
  { notes }: Round,
  target: string,
  { backupId, tree }: KeptBackup,
  mode: TargetMode,
): Promise<TargetMode> {
  const names = await readdir(target)
  if (names.length === 0) {
    // As root, a restore takes the directory first; killed there, it leaves it root's, and its plan says so.
    const user = unprivilegedUser()
    if (user !== undefined) await chown(target, user.uid, user.gid)
    return 'new'
  }
  // Killed between making it and writing it: the documentation of TARGET_IN_USE has the operator remove it.
  if ((await readFile(join(target, LOCK), 'utf8').catch(() => undefined)) === '') {
    notes.push('an empty lock file removed')
    await rm(join(target, LOCK))
  }
  const text = await readFile(join(target, MARKER), 'utf8').catch(() => undefined)
  if (text === '' && names.every((name) => name === MARKER)) {
    notes.push('an empty marker removed')
    await rm(join(target, MARKER))
    return 'new'
  }
  if (text === undefined) throw new Violation(`a target without a marker: ${names.join(', ')}`)
  const { state, backupId: marked } = JSON.parse(text) as Record<string, string>
  if (state === 'complete' && marked !== backupId) return mode
  const startable = (await readdir(join(target, 'global')).catch((): string[] => [])).includes('pg_control')
  if (startable || state === 'complete') {
    const differing = differences(await treeOf(target), tree).filter(
      (line) => !/^(tidemark_restore\.json|postmaster\.pid):/.test(line),
    )
    demand(differing.length === 0, `a target that starts and is not whole (${state})`, differing.slice(0, 20))
  }
  demand(marked === backupId, 'a marker of another backup', text)
  return state === 'complete' ? 'delta' : 'resume'
}
