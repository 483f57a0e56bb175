import { createHash } from 'node:crypto'
import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import { FileHash } from './file-hash.ts'

test('pieces and holes give the SHA-256 of the whole file', () => {
  const pieces = fc.array(fc.record({ gap: fc.integer({ min: 0, max: 200_000 }), bytes: fc.uint8Array() }), {
    maxLength: 6,
  })
  fc.assert(
    fc.property(pieces, fc.integer({ min: 0, max: 200_000 }), (pieces, tail) => {
      const hash = new FileHash()
      const whole: Uint8Array[] = []
      let at = 0
      for (const { gap, bytes } of pieces) {
        hash.add(at + gap, bytes)
        whole.push(Buffer.alloc(gap), bytes)
        at += gap + bytes.length
      }
      const expected = createHash('sha256')
        .update(Buffer.concat([...whole, Buffer.alloc(tail)]))
        .digest('hex')
      expect(hash.end(at + tail)).toBe(expected)
    }),
    { numRuns: 50 },
  )
})

test('an empty file has the digest of nothing', () => {
  expect(new FileHash().end(0)).toBe(createHash('sha256').digest('hex'))
})
