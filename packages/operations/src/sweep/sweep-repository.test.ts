/** A sweep never takes what somebody needs, and always takes debris once its time has come. */
import { randomInt } from 'node:crypto'
import * as fc from 'fast-check'
import { randomId, silentLogger, systemClock } from '@tidemark/kernel'
import {
  ClusterLayout,
  type CommitRecord,
  FolderMismatchError,
  MAX_BYTES,
  type Repository,
  recordAt,
} from '@tidemark/repository'
import { CLUSTER, SYSTEM_ID, newSampleSet, noDeadline, readBackup, writeBackup } from '@tidemark/repository/testing'
import { ManualClock, MemoryObjectStore } from '@tidemark/storage/testing'
import { StoreAccessDeniedError, StoreFullError, StoreUnavailableError } from '@tidemark/storage'
import { beforeAll, expect, test } from 'vitest'
import { type SweepOutcome, sweepRepository } from './sweep-repository.ts'

const seed = Number(process.env['TIDEMARK_TEST_SEED'] ?? randomInt(2 ** 31))
process.stderr.write(`TIDEMARK_TEST_SEED=${seed}\n`)
fc.configureGlobal({ seed })

const MINUTE_MS = 60_000
const HOUR_MS = 60 * MINUTE_MS
const layout = new ClusterLayout(CLUSTER, SYSTEM_ID)

const sweepDeps = { clock: systemClock, logger: silentLogger, signal: noDeadline, progress: () => {} }

/** A pause after a failure is over at once; a deadline never comes. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  return ms < 45_000 ? Promise.resolve() : systemClock.sleep(ms, signal)
}

let template: CommitRecord
let sign: (payload: object) => Buffer
let publicKey: string
let marker: Repository['marker']
beforeAll(async () => {
  const sample = await newSampleSet()
  template = (await writeBackup(sample, [])).record
  sign = (payload) => sample.keys.keyring.signer.sign(payload)
  publicKey = sample.set.publicKey
  marker = (sample.set.repositories[0] as Repository).marker
})

interface Attempt {
  readonly id: string
  parents: Attempt[]
  begins: number
  packs: string[]
  /** By the store's clock. */
  renewedMs: number
  state: 'live' | 'dead' | 'committed'
}

/** A repository whose attempts are played: every object is put as a writer puts it, at a time of the test's choosing. */
class Play {
  readonly clock = new ManualClock()
  /** Nobody waits. */
  readonly hostClock = { ...systemClock, sleep: async (ms: number, signal: AbortSignal) => pause(ms, signal) }
  readonly store = new MemoryObjectStore({ storeClock: this.clock, deadlineMs: 1e9 })
  readonly repository: Repository = { name: 'played', store: this.store, required: true, marker }
  readonly attempts: Attempt[] = []

  get nowMs(): number {
    return this.clock.now().getTime()
  }

  async begin(parents: Attempt[] = []): Promise<Attempt> {
    const attempt: Attempt = { id: randomId(), parents, begins: 0, packs: [], renewedMs: 0, state: 'live' }
    this.attempts.push(attempt)
    await this.renew(attempt)
    return attempt
  }

  async renew(attempt: Attempt): Promise<void> {
    const begin = {
      format: 'tidemark-begin',
      version: 1,
      backupId: attempt.id,
      operationId: 'played',
      number: attempt.begins,
      cluster: CLUSTER,
      systemId: SYSTEM_ID,
      startedAt: '2026-01-01T00:00:00.000Z',
      startLsn: null,
      parents: attempt.parents.map(({ id }) => id),
      host: 'host',
      pid: 1,
      requires: [],
    }
    await this.store.put(layout.begin(attempt.id, attempt.begins), sign(begin), { signal: noDeadline })
    attempt.begins += 1
    attempt.renewedMs = this.nowMs
  }

  async pack(attempt: Attempt): Promise<void> {
    const name = `${layout.base(attempt.id)}pack-${String(attempt.packs.length + 1).padStart(5, '0')}`
    await this.store.put(name, Buffer.from('sealed'), { signal: noDeadline })
    attempt.packs.push(name)
  }

  /** As a writer does it: not once its lease is over. */
  async commit(attempt: Attempt): Promise<void> {
    await this.renew(attempt)
    attempt.state = 'committed'
    const record: CommitRecord = {
      ...template,
      backupId: attempt.id,
      parents: attempt.parents.map(({ id }) => id),
      stoppedAt: this.clock.now().toISOString(),
    }
    await this.store.put(recordAt(record).name, sign(record), { signal: noDeadline })
  }

  /** Time goes by; live attempts renew, unless all hosts are silent. */
  async pass(minutes: number, silent: boolean): Promise<void> {
    for (let left = minutes; left > 0; left -= 50) {
      this.clock.advance(Math.min(left, 50) * MINUTE_MS)
      for (const attempt of this.attempts.filter(({ state }) => state === 'live')) {
        if (this.nowMs - attempt.renewedMs > HOUR_MS) attempt.state = 'dead'
        else if (!silent) await this.renew(attempt)
      }
    }
  }

  /** Sweeps until nothing of what is dead can be there any more: packs, then a mark, begin objects, the mark. */
  async sweepAll(): Promise<void> {
    for (const minutes of [0, 0, 32, 25 * 60]) {
      this.clock.advance(minutes * MINUTE_MS)
      await this.sweep()
    }
  }

  sweep(dryRun = false): Promise<SweepOutcome> {
    const deps = { publicKey, clock: this.hostClock, logger: silentLogger, signal: noDeadline, progress: () => {} }
    return sweepRepository(this.repository, { cluster: undefined, dryRun }, deps)
  }

  has(name: string): boolean {
    return this.store.bytesOf(name) !== undefined
  }

  newestMs({ id }: Attempt, times: ReadonlyMap<string, number>): number {
    const names = [...this.store.names(layout.base(id)), ...this.store.names(layout.beginsOf(id))]
    return Math.max(...names.map((name) => times.get(name) ?? Number.NEGATIVE_INFINITY))
  }

  async times(): Promise<Map<string, number>> {
    const times = new Map<string, number>()
    for await (const { name, modifiedAt } of this.store.list('', { signal: noDeadline }))
      times.set(name, modifiedAt.getTime())
    return times
  }

  /** What a sweep at this moment must leave, and what it must take. */
  async oracle(): Promise<{ needed: string[]; debris: string[] }> {
    const times = await this.times()
    const needed = new Set<string>()
    const young = (ms: number): boolean => this.nowMs - ms <= 24 * HOUR_MS
    for (const { state, packs, parents, id, begins } of this.attempts) {
      if (state === 'dead') continue
      for (const name of [...packs, ...parents.flatMap((parent) => parent.packs)]) needed.add(name)
      needed.add(layout.begin(id, begins - 1))
    }
    const debris: string[] = []
    for (const attempt of this.attempts.filter(({ state }) => state === 'dead')) {
      if (young(this.newestMs(attempt, times))) continue
      const named = this.attempts.some(
        (other) =>
          other.parents.includes(attempt) &&
          (other.state === 'committed' || young(times.get(layout.begin(other.id, other.begins - 1)) ?? 0)),
      )
      if (!named) debris.push(...attempt.packs)
    }
    return { needed: [...needed], debris }
  }
}

const step = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant('begin' as const), parents: fc.array(fc.nat(20), { maxLength: 2 }) }),
  },
  { weight: 6, arbitrary: fc.record({ do: fc.constant('pack' as const), who: fc.nat(20) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('die' as const), who: fc.nat(20) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('commit' as const), who: fc.nat(20) }) },
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant('pass' as const),
      minutes: fc.integer({ min: 1, max: 2_000 }),
      silent: fc.boolean(),
    }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('sweep' as const), dies: fc.option(fc.nat(4)) }) },
)

type Step = typeof step extends fc.Arbitrary<infer T> ? T : never

/** Plays a timeline; what a sweep took and should not have, or left and should not have, is in `wrong`. */
async function playOut(steps: readonly Step[]): Promise<{ wrong: string[]; needed: number; debris: number }> {
  const play = new Play()
  const wrong: string[] = []
  let [needed, debris] = [0, 0]
  const live = (n: number): Attempt | undefined => {
    const all = play.attempts.filter(({ state }) => state === 'live')
    return all[n % Math.max(all.length, 1)]
  }
  for (const move of steps) {
    switch (move.do) {
      case 'begin': {
        const times = await play.times()
        const adoptable = play.attempts.filter(
          (one) => one.state !== 'committed' && play.nowMs - play.newestMs(one, times) < 12 * HOUR_MS,
        )
        const parents = new Set(move.parents.flatMap((n) => adoptable[n % Math.max(adoptable.length, 1)] ?? []))
        await play.begin([...parents])
        break
      }
      case 'pack':
      case 'die':
      case 'commit': {
        const attempt = live(move.who)
        if (attempt === undefined) break
        if (move.do === 'pack') await play.pack(attempt)
        else if (move.do === 'die') attempt.state = 'dead'
        else await play.commit(attempt)
        break
      }
      case 'pass':
        await play.pass(move.minutes, move.silent)
        break
      case 'sweep': {
        const oracle = await play.oracle()
        // A sweep that dies at some delete leaves what the next one finishes.
        if (move.dies !== null) {
          play.store.faults.latency = countdown(move.dies)
          await play.sweep().catch((error: unknown) => {
            if (!(error instanceof StoreUnavailableError)) throw error
          })
          play.store.faults.clear()
        }
        await play.sweep()
        wrong.push(...oracle.needed.filter((name) => !play.has(name)).map((name) => `taken: ${name}`))
        wrong.push(...oracle.debris.filter((name) => play.has(name)).map((name) => `left: ${name}`))
        needed += oracle.needed.length
        debris += oracle.debris.length
        break
      }
      default:
        move satisfies never
    }
  }
  // In the end all that is not committed has died, and nothing of it stays, whatever was swept when.
  for (const attempt of play.attempts) if (attempt.state === 'live') attempt.state = 'dead'
  await play.pass(25 * 60, true)
  await play.sweepAll()
  const committed = play.attempts.filter(({ state }) => state === 'committed')
  const ids = new Set(committed.flatMap(({ id, parents }) => [id, ...parents.map((parent) => parent.id)]))
  const stays = play.store
    .names()
    .filter((name) => !ids.has(/[0-9a-f]{16}(?=[-/.]|$)/.exec(name.replace(layout.folder, ''))?.[0] ?? ''))
  wrong.push(...stays.map((name) => `left for ever: ${name}`))
  return { wrong, needed, debris }
}

test('over random timelines, nothing that a live attempt, an adopter or a record needs is deleted, and all debris is', async () => {
  let taken = 0
  let left = 0
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 60 }), async (steps) => {
      const { wrong, needed, debris } = await playOut(steps)
      left += needed
      taken += debris
      expect(wrong).toEqual([])
    }),
    // So many that the counts below, some 130 and 1,700 in a thousand, are out of chance's reach.
    { numRuns: 1500 },
  )
  // The timelines are such that both happen.
  expect(taken).toBeGreaterThan(100)
  expect(left).toBeGreaterThan(100)
}, 60_000)

function countdown(deletes: number): MemoryObjectStore['faults']['latency'] {
  let left = deletes
  return (method) => {
    if (method !== 'delete') return
    if (left === 0) throw new StoreUnavailableError('delete', 'memory://')
    left -= 1
  }
}

/** One dead attempt with a pack, old enough to go. */
async function withDebris(): Promise<{ play: Play; dead: Attempt }> {
  const play = new Play()
  const dead = await play.begin()
  await play.pack(dead)
  dead.state = 'dead'
  await play.pass(24 * 60 + 1, true)
  return { play, dead }
}

test('a dry run says what would go and deletes nothing', async () => {
  const { play, dead } = await withDebris()
  const before = play.store.names()
  const told = await play.sweep(true)
  expect(play.store.names()).toEqual(before)
  expect(told).toMatchObject({ objects: 1, folders: [{ backupId: dead.id, objects: 1 }] })
  expect(await play.sweep()).toEqual(told)
  expect(play.store.names()).toEqual(before.filter((name) => name.includes('/begin/')))
  expect(await play.sweep()).toMatchObject({ objects: 0, folders: [] })
  play.clock.advance(HOUR_MS)
  const marked = play.store.names()
  expect(await play.sweep(true)).toMatchObject({ objects: 0, begins: 1 })
  expect(play.store.names()).toEqual(marked)
})

test('begin objects of a swept folder stay until no request of that sweep can take effect any more, and nothing stays for ever', async () => {
  const { play, dead } = await withDebris()
  const begin = layout.begin(dead.id, 0)
  await play.sweep()
  expect([play.has(dead.packs[0] ?? ''), play.has(begin)]).toEqual([false, true])
  for (let minutes = 0; minutes < 31; minutes += 10) {
    expect(await play.sweep()).toMatchObject({ objects: 0, begins: 0 })
    expect(play.has(begin)).toBe(true)
    play.clock.advance(10 * MINUTE_MS)
  }
  expect(await play.sweep()).toMatchObject({ begins: 1 })
  expect(play.store.names()).toEqual([layout.sweptMark(dead.id)])
  play.clock.advance(24 * HOUR_MS)
  await play.sweep()
  expect(play.store.names()).toEqual([])
})

test('a mark of an earlier emptiness does not speak for a folder that was filled and swept again', async () => {
  const { play, dead } = await withDebris()
  await play.sweep()
  await play.sweep()
  expect(play.has(layout.sweptMark(dead.id))).toBe(true)
  play.clock.advance(20 * MINUTE_MS)
  // A late put, or a copy that had no begin object.
  await play.pack(dead)
  await play.pass(25 * 60, true)
  expect(await play.sweep()).toMatchObject({ objects: 1 })
  expect(await play.sweep()).toMatchObject({ begins: 0 })
  expect(play.has(layout.begin(dead.id, 0))).toBe(true)
})

test('of a folder without begin objects a mark remains for a day', async () => {
  const { play, dead } = await withDebris()
  play.store.lose(layout.begin(dead.id, 0))
  await play.sweep()
  expect(play.store.names()).toEqual([layout.sweptMark(dead.id)])
  await play.sweep()
  expect(play.store.names()).toEqual([layout.sweptMark(dead.id)])
  play.clock.advance(25 * HOUR_MS)
  await play.sweep()
  expect(play.store.names()).toEqual([])
})

test('a store that is full is swept', async () => {
  const { play, dead } = await withDebris()
  play.store.faults.always('put', new StoreFullError('put', 'memory://'))
  expect(await play.sweep()).toMatchObject({ objects: 1, folders: [{ backupId: dead.id }] })
})

test('an object that nobody may delete does not keep the other folders, and is named in the end', async () => {
  const { play, dead } = await withDebris()
  const others = [await play.begin(), await play.begin()]
  for (const other of others) {
    await play.pack(other)
    other.state = 'dead'
  }
  await play.pass(25 * 60, true)
  const locked = layout.base(dead.id)
  play.store.faults.always('delete', new StoreAccessDeniedError('delete', 'memory://'), { name: new RegExp(locked) })
  await expect(play.sweep()).rejects.toMatchObject({
    code: 'SWEEP_INCOMPLETE',
    retry: 'after-operator',
    facts: { swept: 2, failed: [{ backupId: dead.id, problem: { code: 'STORE_ACCESS_DENIED' } }] },
  })
  expect([dead, ...others].map(({ packs: [name = ''] }) => play.has(name))).toEqual([true, false, false])
})

test('a store that goes away ends the sweep, not one folder of it', async () => {
  const { play } = await withDebris()
  play.store.faults.always('delete', new StoreUnavailableError('delete', 'memory://'))
  await expect(play.sweep()).rejects.toThrow(StoreUnavailableError)
})

test('what cannot be read is never a reason to delete', async () => {
  for (const kind of ['record', 'begin'] as const) {
    const { play, dead } = await withDebris()
    const other = await play.begin()
    if (kind === 'record') await play.commit(other)
    const [name = ''] = play.store.names(kind === 'record' ? layout.records : layout.beginsOf(other.id))
    play.store.corrupt(name, (bytes) => void (bytes[30] = (bytes[30] ?? 0) ^ 1))
    expect(await play.sweep()).toMatchObject({ objects: 0, kept: [{ backupId: dead.id, why: 'undecided' }] })
    expect(play.has(dead.packs[0] ?? '')).toBe(true)
  }
})

test('debris whose own begin object is of a release to come is left to that release', async () => {
  const { play, dead } = await withDebris()
  const [name = ''] = play.store.names(layout.beginsOf(dead.id))
  const begin = JSON.parse(play.store.bytesOf(name)?.toString().split('\n')[0] ?? '') as object
  play.store.corrupt(name, () => sign({ ...begin, requires: ['longer-leases'] }))
  expect(await play.sweep()).toMatchObject({ objects: 0, kept: [{ backupId: dead.id, why: 'undecided' }] })
})

test('a record speaks for its parents also where a copy or a storage class gave them later times than its own', async () => {
  const play = new Play()
  const parent = await play.begin()
  await play.pack(parent)
  parent.state = 'dead'
  await play.commit(await play.begin([parent]))
  await play.pass(60 * 25, true)
  for (const name of parent.packs) {
    const bytes = play.store.bytesOf(name) ?? Buffer.alloc(0)
    await play.store.put(name, bytes, { signal: new AbortController().signal })
  }
  await play.pass(60 * 25, true)
  expect(await play.sweep()).toMatchObject({ folders: [], kept: [{ backupId: parent.id, why: 'parent' }] })
})

test("a begin object under another attempt's name hides nobody's parents", async () => {
  const play = new Play()
  const parent = await play.begin()
  await play.pack(parent)
  parent.state = 'dead'
  const other = await play.begin()
  const child = await play.begin([parent])
  await play.pass(60 * 25, true)
  await play.renew(child)
  const bytes = play.store.bytesOf(layout.begin(other.id, 0)) ?? Buffer.alloc(0)
  await play.store.put(layout.begin(child.id, 999_999_999), bytes, { signal: new AbortController().signal })
  const { folders } = await play.sweep()
  expect(folders.map(({ backupId }) => backupId)).not.toContain(parent.id)
})

test('of a committed backup the begin objects go, but for the newest one', async () => {
  const play = new Play()
  const attempt = await play.begin()
  await play.pass(300, false)
  await play.pack(attempt)
  await play.commit(attempt)
  await play.pass(25 * 60, true)
  const { begins } = await play.sweep()
  expect(begins).toBe(attempt.begins - 1)
  expect(play.store.names(layout.begins)).toEqual([layout.begin(attempt.id, attempt.begins - 1)])
  expect(play.has(attempt.packs[0] ?? '')).toBe(true)
})

test('an old folder that comes to life while it is swept is let be', async () => {
  const { play, dead } = await withDebris()
  let deletes = 0
  play.store.faults.latency = async (method, name) => {
    if (method === 'delete') deletes += 1
    // Between the decision and the first delete, a copy says that it goes on here.
    if (method === 'list' && name === layout.beginsOf(dead.id) && dead.begins === 1) await play.renew(dead)
  }
  expect(await play.sweep()).toMatchObject({ objects: 0, kept: [{ backupId: dead.id, why: 'young' }] })
  expect(deletes).toBe(0)
})

test.each([-400, -2, 2, 400])(
  'a writer whose clock is %i days off is neither swept nor does it sweep others',
  async (days) => {
    const [hostClock, storeClock] = [new ManualClock(), new ManualClock()]
    hostClock.shift(days * 24 * HOUR_MS)
    const sample = await newSampleSet([true], hostClock, storeClock)
    const [repository] = sample.set.repositories as [Repository]
    const sweep = (): Promise<SweepOutcome> =>
      sweepRepository(
        repository,
        { cluster: undefined, dryRun: false },
        { ...sweepDeps, publicKey: sample.set.publicKey },
      )
    const { record } = await writeBackup(sample, undefined, {
      clock: hostClock,
      beforeCommit: async () => void (await sweep()),
    })
    storeClock.advance(25 * HOUR_MS)
    expect(await sweep()).toMatchObject({ folders: [], objects: 0 })
    await readBackup(repository, record, sample.keys.keyring)
  },
)

test('an attempt that slept through its own sweep does not commit', async () => {
  const storeClock = new ManualClock()
  const sample = await newSampleSet([true], undefined, storeClock)
  const [repository] = sample.set.repositories as [Repository]
  const late = writeBackup(sample, undefined, {
    beforeCommit: async () => {
      storeClock.advance(25 * HOUR_MS)
      await sweepRepository(
        repository,
        { cluster: CLUSTER, dryRun: false },
        { ...sweepDeps, publicKey: sample.set.publicKey },
      )
    },
  })
  const error: unknown = await late.catch((reason: unknown) => reason)
  expect([FolderMismatchError.name, 'LeaseLostError']).toContain((error as Error).name)
  expect(sample.stores[0]?.names(layout.records)).toEqual([])
})

test('a delete that failed is followed by another look, never by the same request', async () => {
  const { play, dead } = await withDebris()
  play.store.faults.latency = async (method) => {
    if (method !== 'delete') return
    play.store.faults.latency = undefined
    // The answer is lost; meanwhile a copy goes on here.
    await play.renew(dead)
    throw new StoreUnavailableError('delete', 'memory://')
  }
  expect(await play.sweep()).toMatchObject({ objects: 0, kept: [{ backupId: dead.id, why: 'young' }] })
  expect(play.has(dead.packs[0] ?? '')).toBe(true)
})

test("a look that is a minute old by the store's clock leads to another look, not to a delete", async () => {
  const { play, dead } = await withDebris()
  let listed = 0
  play.store.faults.latency = async (method, name) => {
    // Once for the decision, once for the look: after the begin objects were looked at.
    if (method !== 'list' || name !== layout.base(dead.id) || (listed += 1) !== 2) return
    play.clock.advance(61_000)
    await play.renew(dead)
  }
  expect(await play.sweep()).toMatchObject({ objects: 0, kept: [{ backupId: dead.id, why: 'young' }] })
  expect(play.has(dead.packs[0] ?? '')).toBe(true)
})

test('a delete that takes more than a minute is cut off, and what came meanwhile is seen', async () => {
  const { play, dead } = await withDebris()
  const hostClock = new ManualClock()
  let hangs = 0
  play.store.faults.latency = async (method) => {
    if (method !== 'delete') return
    hangs += 1
    await play.renew(dead)
    hostClock.advance(60_000)
    await new Promise(() => {})
  }
  const deps = { ...sweepDeps, publicKey, clock: hostClock }
  const swept = sweepRepository(play.repository, { cluster: undefined, dryRun: false }, deps)
  await expect.poll(() => hostClock.sleepingMs.length).toBeGreaterThan(0)
  hostClock.advance(10_000)
  expect(await swept).toMatchObject({ objects: 0, kept: [{ backupId: dead.id, why: 'young' }] })
  expect(hangs).toBe(1)
})

test('a begin object that names the folder as a parent ends its sweep, also when it comes in the middle', async () => {
  const { play, dead } = await withDebris()
  let listed = 0
  play.store.faults.latency = async (method, name) => {
    if (method === 'list' && name === layout.base(dead.id) && (listed += 1) === 1) await play.begin([dead])
  }
  expect(await play.sweep()).toMatchObject({ objects: 0, kept: [{ backupId: dead.id, why: 'young' }] })
  expect(play.has(dead.packs[0] ?? '')).toBe(true)
})

test('a begin object that was put again since the listing is not swept', async () => {
  const play = new Play()
  const dead = await play.begin()
  dead.state = 'dead'
  await play.pass(25 * 60, true)
  play.store.faults.latency = async (method, name) => {
    if (method !== 'list' || name !== layout.records) return
    play.store.faults.latency = undefined
    const name0 = layout.begin(dead.id, 0)
    await play.store.put(name0, play.store.bytesOf(name0) ?? Buffer.alloc(0), { signal: noDeadline })
  }
  // Records are listed only where there is a folder of them.
  await play.commit(await play.begin())
  expect(await play.sweep()).toMatchObject({ begins: 0 })
  expect(play.has(layout.begin(dead.id, 0))).toBe(true)
})

test('a begin object too large to be one is not read, and speaks for every folder', async () => {
  const { play, dead } = await withDebris()
  const name = layout.begin(randomId(), 0)
  await play.store.put(name, Buffer.alloc(MAX_BYTES.begin + 1), { signal: noDeadline })
  expect(await play.sweep()).toMatchObject({ objects: 0, kept: [{ backupId: dead.id, why: 'undecided' }] })
})

test('more objects than one request takes go in several, each with a look of its own', async () => {
  const { play, dead } = await withDebris()
  for (let i = 2; i <= 2_100; i += 1) await play.pack(dead)
  await play.pass(25 * 60, true)
  let [looks, requests] = [0, 0]
  play.store.faults.latency = (method, name) => {
    if (method === 'list' && name === layout.beginsOf(dead.id)) looks += 1
    if (method === 'delete') requests += 1
  }
  expect(await play.sweep()).toMatchObject({ objects: 2_100, folders: [{ objects: 2_100 }] })
  expect(requests).toBe(3)
  expect(looks).toBeGreaterThanOrEqual(requests)
  expect(play.store.names()).toEqual([layout.begin(dead.id, 0)])
})
