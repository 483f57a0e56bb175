import { lsn } from '@tidemark/kernel'
import { expect, test } from 'vitest'
import { StreamMalformedError } from './errors.ts'
import { SegmentAssembler, type WalSegment } from './segment-assembler.ts'

const segmentBytes = 1024

function assemble(consume: (segment: WalSegment) => void | Promise<void>): SegmentAssembler {
  return new SegmentAssembler({ from: lsn(2048n), timeline: 3, segmentBytes, consume, onConsumed: () => {} })
}

function wal(bytes: number, seed: number): Buffer {
  return Buffer.from(Array.from({ length: bytes }, (_, index) => (index * 7 + seed) % 256))
}

test('a stream in odd pieces becomes whole segments in order', async () => {
  const got: { segment: bigint; startLsn: bigint; bytes: Buffer }[] = []
  const assembler = assemble(
    ({ segment, startLsn, bytes }) => void got.push({ segment, startLsn, bytes: Buffer.from(bytes) }),
  )
  const stream = wal(3 * segmentBytes + 100, 1)
  for (let at = 0; at < stream.length; at += 333) {
    await assembler.take(lsn(BigInt(2048 + at)), stream.subarray(at, at + 333))
  }
  await assembler.settle()
  expect(got.map(({ segment, startLsn }) => [segment, startLsn])).toEqual([
    [2n, 2048n],
    [3n, 3072n],
    [4n, 4096n],
  ])
  expect(Buffer.concat(got.map(({ bytes }) => bytes)).equals(stream.subarray(0, 3 * segmentBytes))).toBe(true)
  expect(assembler.received).toBe(BigInt(2048 + stream.length))
  expect(assembler.consumed).toBe(BigInt(2048 + 3 * segmentBytes))
})

test('with one segment at a slow consumer and one full, more must wait; nothing is confirmed early', async () => {
  const gates: (() => void)[] = []
  const assembler = assemble(() => new Promise((resolve) => gates.push(resolve)))
  expect(assembler.take(lsn(2048n), wal(2 * segmentBytes - 1, 0))).toBeUndefined()
  const full = assembler.take(lsn(BigInt(2048 + 2 * segmentBytes - 1)), wal(1, 0))
  expect(full).toBeInstanceOf(Promise)
  expect(assembler.consumed).toBe(2048n)
  expect(gates.length).toBe(1)

  gates[0]?.()
  await full
  expect(assembler.consumed).toBe(3072n)
  expect(gates.length).toBe(2)
})

test('a consumer may transfer the bytes away', async () => {
  const assembler = assemble(
    ({ bytes }) => void structuredClone(bytes.buffer, { transfer: [bytes.buffer as ArrayBuffer] }),
  )
  await assembler.take(lsn(2048n), wal(segmentBytes, 0))
  await assembler.settle()
  await assembler.take(lsn(3072n), wal(segmentBytes, 0))
  await assembler.settle()
  expect(assembler.consumed).toBe(4096n)
})

test('a hole in the stream is refused, and a failing consumer is heard', async () => {
  const assembler = assemble(() => Promise.reject(new Error('disk full')))
  expect(() => assembler.take(lsn(4096n), wal(1, 0))).toThrow(StreamMalformedError)
  void assembler.take(lsn(2048n), wal(segmentBytes, 0))
  await expect(assembler.settle()).rejects.toThrow('disk full')
})
