/** What holds after any fault, whatever the operation said: checked the same way by the fault tests and the chaos campaign. */
import { readFile, readdir } from 'node:fs/promises'
import type { BackupResult, RestoreResult } from '@tidemark/contracts'
import { type TestPostgres, adoptPostgres } from '@tidemark/testkit'
import { type Fleet, untilLetGo, untilPromoted } from './fleet.ts'
import { type ListedHere, type Outcome, listHere, verifyHere } from './operate.ts'
import { fingerprint } from './sample-cluster.ts'

/** A promise that did not hold. */
export class Violation extends Error {}

export function demand(holds: boolean, what: string, evidence: unknown): void {
  if (!holds) throw new Violation(`${what}: ${JSON.stringify(evidence, undefined, 1)}`)
}

export interface Scene {
  readonly fleet: Fleet
  readonly source: TestPostgres
  /** Folders of the fleet that are file repositories. */
  readonly folders: readonly string[]
  /** What killed processes have left, by `tolerateDebris`. */
  readonly debris: Set<string>
}

/**
 * After a backup was tried: the server is let go, nothing half is listed, every listed backup has its contents in every repository that
 * lists it, the outcome is the truth, and no temporary file is left.
 *
 * @param known ids that were listed before; they are not verified again.
 * @returns what is listed now.
 */
export async function afterBackup(
  scene: Scene,
  outcome: Outcome<BackupResult>,
  known: ReadonlySet<string> = new Set(),
): Promise<readonly ListedHere[]> {
  await untilLetGo(scene.source)
  const { config } = scene.fleet
  const listing = await listHere(config)
  for (const { repository, backups } of listing) {
    for (const backup of backups) {
      demand('record' in backup, `a record in ${repository} is not to be trusted`, backup)
      if (known.has(backup.backupId)) continue
      const { repositories } = await verifyHere(config, backup.backupId, repository)
      demand(
        repositories.length === 1 && repositories.every(({ ok }) => ok),
        `${backup.backupId} is listed in ${repository} and does not verify`,
        repositories,
      )
    }
  }
  tellsTheTruth(outcome, listing)
  if (outcome.kind === 'killed') await tolerateDebris(scene)
  await demandNoDebris(scene, listing)
  return listing
}

/** No temporary file or scratch object, but those that are tolerated. */
export async function demandNoDebris(scene: Scene, listing: readonly ListedHere[]): Promise<void> {
  const left = (await debrisOf(scene, listing)).filter((place) => !scene.debris.has(place))
  demand(left.length === 0, 'temporary files or objects are left', left)
}

function tellsTheTruth(outcome: Outcome<BackupResult>, listing: readonly ListedHere[]): void {
  if (outcome.kind === 'failed') namesItsCause(outcome)
  if (outcome.kind !== 'succeeded') return
  const { backupId, repositories } = outcome.result
  for (const { name, outcome: said } of repositories) {
    const place = listing.find(({ repository }) => repository === name)
    const listed = place?.backups.some((backup) => backup.backupId === backupId) ?? false
    // 'dropped' with a record is possible where only the answer was lost; 'stored' without one is a lie.
    demand(said === 'dropped' || listed, `reported as stored in ${name}, where it is not listed`, outcome)
    demand(said === 'stored' || place?.required !== true, `a success without the required ${name}`, outcome)
  }
}

export function namesItsCause({ problem }: { readonly problem: { readonly code: string } }): void {
  demand(problem.code !== 'INTERNAL' && problem.code !== '', 'a failure that names no cause', problem)
}

/** A process that was killed can take nothing with it, nor one whose store is away: what lies there now is not held against what comes later. */
export async function tolerateDebris(scene: Scene): Promise<void> {
  for (const place of await debrisOf(scene, await listHere(scene.fleet.config))) scene.debris.add(place)
}

async function debrisOf({ fleet, folders }: Scene, listing: readonly ListedHere[]): Promise<string[]> {
  const scratch = listing.flatMap(({ repository, scratch }) => scratch.map((name) => `${repository}: ${name}`))
  return [...(await fleet.leftovers(...folders)), ...scratch]
}

/**
 * After a restore was tried: it is whole and equal, or it left nothing, or (killed) a directory that says so and that no server starts in.
 *
 * @param compare how a started copy is held against the source.
 * @param look at a restored directory before a server is started in it; false: none has to be.
 */
export async function afterRestore(
  outcome: Outcome<RestoreResult>,
  target: string,
  compare: (copy: TestPostgres) => Promise<void>,
  look: (target: string) => Promise<boolean> = async () => true,
): Promise<void> {
  const found = await readdir(target).catch((): string[] => [])
  switch (outcome.kind) {
    case 'succeeded': {
      demand(outcome.result.targetDirectory === target, 'another target was reported', outcome)
      if (!(await look(target))) return
      await using copy = await adoptPostgres({ dataDirectory: target })
      await untilPromoted(copy)
      await compare(copy)
      return
    }
    case 'failed':
      namesItsCause(outcome)
      await demandKept(target, found, outcome)
      return
    case 'killed': {
      if (found.length === 0) return
      const control = await readdir(`${target}/global`).catch((): string[] => [])
      const fence = await readFile(`${target}/tidemark_restore.json`, 'utf8').catch(() => '')
      // Killed between the last rename and the word 'complete', it is whole and starts.
      const whole = control.includes('pg_control')
      demand(whole || !fence.includes('"complete"'), 'half a restore says that it is complete', fence)
      if (!whole) return
      await using copy = await adoptPostgres({ dataDirectory: target })
      await untilPromoted(copy)
      await compare(copy)
      return
    }
    default:
      outcome satisfies never
  }
}

/** A failed restore left nothing, or its work behind the fence: nothing that starts, holds the directory, or is only temporary. */
async function demandKept(target: string, found: readonly string[], outcome: unknown): Promise<void> {
  if (found.length === 0) return
  const control = await readdir(`${target}/global`).catch((): string[] => [])
  const fence = await readFile(`${target}/tidemark_restore.json`, 'utf8').catch(() => '')
  const temporary = found.filter((name) => name === 'postmaster.pid' || name === 'tidemark_spool')
  const behindFence = fence.includes('"incomplete"') && !control.includes('pg_control') && temporary.length === 0
  demand(behindFence, 'a failed restore left files that are not behind its fence', { outcome, found, fence })
}

/**
 * Equal in contents to what was read of the source when nobody wrote.
 *
 * @param except tables that somebody did write to.
 */
export function equalTo(
  before: Readonly<Record<string, string>>,
  except: readonly string[] = [],
): (copy: TestPostgres) => Promise<void> {
  return async (copy) => {
    const after = await fingerprint(copy)
    const names = [...new Set([...Object.keys(before), ...Object.keys(after)])]
    const differing = names.filter((name) => before[name] !== after[name] && !except.includes(name))
    demand(
      differing.length === 0,
      'the copy differs from its source',
      differing.map((k) => [k, before[k], after[k]]),
    )
  }
}
