import { expect, test } from 'vitest'
import * as fc from 'fast-check'
import { MessageBuffers } from './message-socket.ts'

const BUFFER_BYTES = 64

function message(length: number, fill: number): Buffer {
  const bytes = Buffer.alloc(1 + 4 + length, fill)
  bytes.write('d', 0)
  bytes.writeUInt32BE(4 + length, 1)
  return bytes
}

/** Feeds `stream` in reads of these sizes (or as much as there is space for) and collects the runs. */
function feed(stream: Buffer, reads: readonly number[]): Buffer[] {
  const runs: Buffer[] = []
  const held: Buffer[] = []
  const buffers = new MessageBuffers((run) => {
    runs.push(Buffer.from(run))
    held.push(run)
  }, BUFFER_BYTES)
  let at = 0
  for (let i = 0; at < stream.length; i += 1) {
    const { space } = buffers
    expect(space.length).toBeGreaterThan(0)
    const read = stream.copy(space, 0, at, at + Math.min(space.length, reads[i % reads.length] ?? 1))
    // Reading into the space must leave what was handed on last as it was.
    for (const [j, run] of held.entries()) expect(run.equals(runs[runs.length - held.length + j] ?? run)).toBe(true)
    held.length = 0
    at += read
    buffers.take(read)
  }
  return runs
}

test('whatever the reads, every byte is handed on once, in order, and runs end where messages do', () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 0, max: 50 }), { minLength: 1, maxLength: 60 }),
      fc.array(fc.integer({ min: 1, max: BUFFER_BYTES }), { minLength: 1, maxLength: 10 }),
      (lengths, reads) => {
        const messages = lengths.map((length, i) => message(length, i))
        const stream = Buffer.concat(messages)
        const ends = new Set<number>()
        let end = 0
        for (const { length } of messages) ends.add((end += length))
        const runs = feed(stream, reads)
        expect(Buffer.concat(runs).equals(stream)).toBe(true)
        let at = 0
        for (const run of runs) expect(ends.has((at += run.length))).toBe(true)
      },
    ),
  )
})

test('a message longer than a buffer comes in parts, and those after it are whole again', () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 0, max: 5 * BUFFER_BYTES }), { minLength: 1, maxLength: 20 }),
      fc.array(fc.integer({ min: 1, max: BUFFER_BYTES }), { minLength: 1, maxLength: 10 }),
      (lengths, reads) => {
        const stream = Buffer.concat([...lengths.map((length, i) => message(length, i)), message(3, 255)])
        const runs = feed(stream, reads)
        expect(Buffer.concat(runs).equals(stream)).toBe(true)
      },
    ),
  )
})
