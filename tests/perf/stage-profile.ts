/**
 * Where a command's CPU goes, from V8's own sampling (`--cpu-prof`, every thread).
 *
 * A sample counts for the innermost function of its stack that a stage names; time inside a native call (zlib, ciphers, hashes) is sampled in its
 * JavaScript caller. Threads of libuv's pool (fsync, writes) run no JavaScript and are not seen.
 */
import { execFile } from 'node:child_process'
import { mkdir, readFile, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Command } from './meter.ts'

interface Profile {
  readonly nodes: readonly {
    readonly id: number
    readonly callFrame: { readonly functionName: string; readonly url: string }
    readonly children?: readonly number[]
  }[]
  readonly samples: readonly number[]
  readonly timeDeltas: readonly number[]
}

/** Innermost first: the first that matches a frame of the stack, from its top, has the sample. */
const STAGES: readonly (readonly [stage: string, matches: (name: string, url: string) => boolean])[] = [
  ['idle', (name) => name === '(idle)'],
  ['native, of no function', (name) => name === '(program)'],
  ['garbage collection', (name) => name === '(garbage collector)'],
  ['zstd', (name) => /zstd(Compress|Decompress)Sync|^(de)?compress$/i.test(name)],
  ['keyed digest of frames', (name) => name === 'keyedDigest'],
  ['encrypt or decrypt, MAC', (name) => name === 'sealFrame' || name === 'openFrame'],
  ['copy into the pack, its SHA-256', (name, url) => name === '#append' && url.includes('sealing-thread')],
  ['write files', (name) => name === 'writeSync' || name === 'writeFully'],
  ['read back and compare', (name) => name === 'readBack'],
  ['cut into frames', (_, url) => url.includes('frame-cutter')],
  ['tar', (_, url) => url.includes('tar-reader')],
  ['WAL', (_, url) => /segment-assembler|wal-(stream|messages)/.test(url)],
  ['receive: protocol', (_, url) => /pg-protocol|\/pg\/|exchange\.ts|base-backup-receiver/.test(url)],
  [
    'receive: socket',
    (name, url) => url.includes('stream_base_commons') || url === 'node:net' || name === 'onStreamRead',
  ],
  ['messages between threads', (name, url) => url.includes('node:internal/worker') || name === 'postMessage'],
  ['S3 client', (_, url) => /@aws-sdk|@smithy|node:(_?http|https|tls|_tls)/.test(url)],
  [
    'loading of modules',
    (name, url) =>
      /node:internal\/modules|node:internal\/(process\/)?esm/.test(url) || /compile|stripTypes/i.test(name),
  ],
]

/** Runs the command once under the profiler; resolves to a Markdown table of CPU seconds. `folder` keeps the profiles. */
export async function profileStages(command: Command, env: NodeJS.ProcessEnv, folder: string): Promise<string> {
  const [program, ...args] = command
  await rm(folder, { recursive: true, force: true })
  await mkdir(folder, { recursive: true })
  const flags = ['--cpu-prof', '--cpu-prof-interval', '1000', '--cpu-prof-dir', folder]
  await promisify(execFile)(program, [...flags, ...args], { env, maxBuffer: 1 << 24 })
  const threads: Map<string, number>[] = []
  for (const name of (await readdir(folder)).toSorted()) {
    threads.push(secondsByStage(JSON.parse(await readFile(join(folder, name), 'utf8')) as Profile))
  }
  const busiest = threads.toSorted((a, b) => busy(b) - busy(a))
  const stages = [...STAGES.map(([stage]) => stage), 'other'].filter((stage) => busiest.some((one) => one.has(stage)))
  const columns = busiest.map((_, i) => `thread ${i + 1}`)
  const lines = [`| stage | ${columns.join(' | ')} | sum |`, `|---|${'---|'.repeat(busiest.length + 1)}`]
  for (const stage of stages) {
    const seconds = busiest.map((one) => one.get(stage) ?? 0)
    const cells = [...seconds, seconds.reduce((sum, value) => sum + value, 0)].map((value) => value.toFixed(2))
    lines.push(`| ${stage} | ${cells.join(' | ')} |`)
  }
  return `${lines.join('\n')}\n`
}

function busy(seconds: ReadonlyMap<string, number>): number {
  return [...seconds].reduce((sum, [stage, value]) => (stage === 'idle' ? sum : sum + value), 0)
}

function secondsByStage({ nodes, samples, timeDeltas }: Profile): Map<string, number> {
  const byId = new Map(nodes.map((node) => [node.id, node]))
  const parents = new Map(nodes.flatMap(({ id, children = [] }) => children.map((child) => [child, id] as const)))
  const stages = new Map<number, string>()
  const stageOf = (sample: number): string => {
    for (let id: number | undefined = sample; id !== undefined; id = parents.get(id)) {
      const frame = byId.get(id)?.callFrame
      const found = frame && STAGES.find(([, matches]) => matches(frame.functionName, frame.url))
      if (found !== undefined) return found[0]
    }
    return 'other'
  }
  const seconds = new Map<string, number>()
  for (const [i, sample] of samples.entries()) {
    const stage = stages.get(sample) ?? stageOf(sample)
    stages.set(sample, stage)
    seconds.set(stage, (seconds.get(stage) ?? 0) + (timeDeltas[i] ?? 0) / 1e6)
  }
  return seconds
}
