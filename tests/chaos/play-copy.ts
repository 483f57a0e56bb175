/**
 * Copies without a key, broken off once or several times, and one that goes on: what the target lists is whole by itself, and a sweep a day later
 * leaves exactly that.
 */
import { readdir, stat, utimes } from 'node:fs/promises'
import { join } from 'node:path'
import { loadConfig } from '@tidemark/config'
import type { CopyResult } from '@tidemark/contracts'
import { type Scene, Violation, demand, demandNoDebris, namesItsCause, tolerateDebris } from '../support/aftermath.ts'
import { type Outcome, copyHere, listHere, objectsHere, outcomeOf, sweepHere, verifyHere } from '../support/operate.ts'
import { landingInRepositories } from './landing.ts'
import type { Library } from './library.ts'
import { restoreAgainst } from './play-restore.ts'
import type { Round, Sabotage } from './round.ts'

export const COPY_TARGET = 'copy'
const DAY_AND_MORE_MS = 25 * 3_600_000

export async function playCopy(round: Round, scene: Scene, sabotage: Sabotage | undefined): Promise<void> {
  const { chance, plan } = round
  const library = await round.bench.library()
  const copying = new Copying(round, scene, library)
  const probe = landingInRepositories(scene.fleet.config, [COPY_TARGET], library.backups.length)
  const attempts = chance.integer(1, 3)
  for (let attempt = 1; attempt <= attempts; attempt += 1) {
    const outcome = (await round.underFault(scene, { do: 'copy', to: COPY_TARGET }, probe)) as Outcome<CopyResult>
    if (plan.fault.leavesDebris === true) await tolerateDebris(scene)
    if (attempt === attempts || outcome.kind === 'succeeded') await sabotage?.(scene)
    await copying.check(outcome)
    if (outcome.kind === 'succeeded') break
    if (chance.next() < 0.3) await copying.sweep()
  }
  if (copying.listed.size < library.backups.length) {
    const { configPath, env } = scene.fleet
    const keyless = loadConfig({ path: configPath, env: { ...env, BACKUP_ENCRYPTION_KEY: '' } })
    const clean = await outcomeOf(copyHere(keyless, COPY_TARGET))
    if (clean.kind !== 'succeeded') throw new Violation(`a clean copy after the fault: ${JSON.stringify(clean)}`)
    await copying.check(clean)
  }
  await copying.demandEqualObjects()
  await copying.sweep()
  await copying.demandEqualObjects()
  // From now on, nobody knows where it came from.
  await scene.fleet.configure({ repositories: { [COPY_TARGET]: round.copyTarget() } })
  await restoreAgainst(round, scene, chance.pick(library.backups), COPY_TARGET)
}

class Copying {
  /** In the target, by backup id; verified there. */
  readonly listed = new Set<string>()
  readonly #round: Round
  readonly #scene: Scene
  readonly #library: Library
  #aged = false

  constructor(round: Round, scene: Scene, library: Library) {
    this.#round = round
    this.#scene = scene
    this.#library = library
  }

  /** Nothing half is listed; what is listed has its contents there; the outcome is the truth. */
  async check(outcome: Outcome<CopyResult>): Promise<void> {
    const { config } = this.#scene.fleet
    const listing = await listHere(config, [COPY_TARGET])
    const backups = listing.flatMap((place) => place.backups)
    for (const id of this.listed)
      demand(
        backups.some(({ backupId }) => backupId === id),
        'a copied backup is not listed any more',
        id,
      )
    for (const backup of backups) {
      demand('record' in backup, 'a record in the copy is not to be trusted', backup)
      const { backupId } = this.#library.kept(backup.backupId)
      if (this.listed.has(backupId)) continue
      const { repositories } = await verifyHere(config, backupId, COPY_TARGET)
      demand(
        repositories.length === 1 && repositories.every(({ ok }) => ok),
        'a listed copy does not verify',
        repositories,
      )
      this.listed.add(backupId)
      this.#round.verified += 1
    }
    if (outcome.kind === 'failed') namesItsCause(outcome)
    if (outcome.kind === 'succeeded')
      demand(this.listed.size === this.#library.backups.length, 'a successful copy that did not copy all', outcome)
    if (outcome.kind === 'killed') await tolerateDebris(this.#scene)
    await demandNoDebris(this.#scene, listing)
  }

  /** While it is young, nothing goes; a day later all goes that no listed backup has. */
  async sweep(): Promise<void> {
    const { config } = this.#scene.fleet
    if (!this.#aged) {
      const before = await this.#objects()
      await sweepHere(config, COPY_TARGET)
      demand(same(before, await this.#objects()), 'a sweep took what is younger than a day', [...before.keys()])
    }
    // What tells a copy of a sweep goes in later ones: a mark is put, then the begin objects go, then the mark.
    for (let day = 1; day <= 4; day += 1) {
      await this.#age()
      const { repositories } = await sweepHere(config, COPY_TARGET)
      await this.#round.bench.heal()
      this.#round.swept += repositories.reduce((sum, { objects }) => sum + objects, 0)
    }
    const left = [...(await this.#objects()).keys()]
    const foreign = left.filter((name) => {
      const id = /\/(?:base\/|begin\/|swept\/|records\/.*-)([0-9a-f]{16})/.exec(name)?.[1]
      return id !== undefined && !this.listed.has(id)
    })
    demand(foreign.length === 0, 'a sweep left what no listed backup has', foreign)
    const listing = await listHere(config, [COPY_TARGET])
    const ids = listing.flatMap(({ backups }) => backups.map(({ backupId }) => backupId))
    demand(ids.length === this.listed.size, 'a sweep changed what is listed', { ids, listed: [...this.listed] })
    const folder = this.#folder()
    if (folder === undefined) return
    const temporary = await readdir(join(folder, '.tmp'))
    demand(temporary.length === 0, 'temporary files of a day ago are left', temporary)
  }

  /** Everything but begin objects has the names and sizes that it has where it came from. */
  async demandEqualObjects(): Promise<void> {
    const wanted = withoutBegins(this.#library.objects[this.#round.copySource()])
    const found = withoutBegins(await this.#objects())
    const differing = [...new Set([...wanted.keys(), ...found.keys()])].filter(
      (name) => wanted.get(name) !== found.get(name),
    )
    demand(
      differing.length === 0,
      'the copy has other objects than its source',
      differing.map((name) => [name, wanted.get(name), found.get(name)]),
    )
  }

  #objects(): Promise<Map<string, number>> {
    return objectsHere(this.#scene.fleet.config, COPY_TARGET, 'clusters/')
  }

  #folder(): string | undefined {
    return this.#scene.folders.includes(COPY_TARGET) ? this.#scene.fleet.folder.join(COPY_TARGET) : undefined
  }

  async #age(): Promise<void> {
    this.#aged = true
    const folder = this.#folder()
    if (folder === undefined) {
      const fault = { kind: 'age', ms: DAY_AND_MORE_MS } as const
      this.#round.bench.store.add({ fault, method: 'GET', path: /list-type/, times: Infinity })
      return
    }
    for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue
      const path = join(entry.parentPath, entry.name)
      // Each from its own time, so that what came later stays later.
      const then = new Date((await stat(path)).mtimeMs - DAY_AND_MORE_MS)
      await utimes(path, then, then)
    }
  }
}

function withoutBegins(objects: ReadonlyMap<string, number>): Map<string, number> {
  return new Map([...objects].filter(([name]) => !/\/(?:begin|swept)\//.test(name)))
}

function same(one: ReadonlyMap<string, number>, other: ReadonlyMap<string, number>): boolean {
  return one.size === other.size && [...one].every(([name, size]) => other.get(name) === size)
}
