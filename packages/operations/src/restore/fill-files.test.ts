import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import { farApart, partsOf } from './fill-files.ts'

test('every wanted frame is in exactly one part, which holds all of it, and no part is larger than a buffer', () => {
  const frames = fc.array(
    fc.record({ bytes: fc.integer({ min: 1, max: 100 }), gap: fc.nat({ max: 60 }), wanted: fc.boolean() }),
    { maxLength: 100 },
  )
  fc.assert(
    fc.property(frames, fc.integer({ min: 100, max: 500 }), fc.nat({ max: 50 }), (frames, bufferBytes, gapBytes) => {
      let at = 0
      const places = frames.map(({ bytes, gap, wanted }, frame) => {
        const from = at + gap
        at = from + bytes
        return { frame, from, to: at, wanted }
      })
      const wanted = places.filter((place) => place.wanted)
      const parts = [
        ...partsOf(Float64Array.from(wanted.flatMap((p) => [p.frame, p.from, p.to])), bufferBytes, gapBytes),
      ]
      expect(parts.flatMap((part) => [...part.frames])).toEqual(wanted.map(({ frame }) => frame))
      for (const { offset, length, frames: inPart } of parts) {
        expect(length).toBeLessThanOrEqual(bufferBytes)
        for (const frame of inPart) {
          const place = places[frame]
          expect(place?.from).toBeGreaterThanOrEqual(offset)
          expect(place?.to).toBeLessThanOrEqual(offset + length)
        }
      }
    }),
  )
})

test('packs are filled each once, and those filled at the same time lie far apart', () => {
  for (const [count, threads] of [
    [0, 2],
    [1, 4],
    [10, 1],
    [11, 2],
    [100, 3],
  ] as const) {
    const order = [...farApart(count, threads)]
    expect(order.toSorted((a, b) => a - b)).toEqual(Array.from({ length: count }, (_, i) => i))
    const distances = order.slice(1).map((pack, i) => Math.abs(pack - (order[i] ?? 0)))
    expect(Math.min(...distances, count)).toBeGreaterThanOrEqual(threads > 1 ? Math.floor(count / threads) - 1 : 0)
  }
})

test('no pack waits for long until all before it are filled', () => {
  const order = [...farApart(1000, 3, 10)]
  expect(order.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 1000 }, (_, i) => i))
  for (const [i, pack] of order.entries()) expect(Math.abs(pack - i)).toBeLessThan(30)
})
