/** What sealing promises: everything comes back, and nothing that was touched does. */
import * as fc from 'fast-check'
import { createCipheriv, createHmac } from 'node:crypto'
import { zstdCompressSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { SealRefusedError, UnknownDataKeyError } from './errors.ts'
import { openFrame, type sealFrame } from './frame.ts'
import { type SealOptions, sealBytes, sealPipe, unsealBytes, unsealPipe } from './sealed-stream.ts'
import { type StreamIdentity, encodeStreamHeader, openStreamHeader } from './stream-header.ts'
import { FRAME_BYTES, HEADER_BYTES, SUITES } from './suite.ts'
import {
  SUITE_NAMES,
  type SampleStream,
  chunksOf,
  gather,
  keyLookup,
  sampleIdentity,
  sealFrames,
  testKey,
} from './testing/sealed-samples.ts'
import { seedProperties } from './testing/seed.ts'

seedProperties()

const keyOf = keyLookup(testKey('one'), testKey('two'))
const plaintexts = [Buffer.from('first frame'), Buffer.from('the second one, longer'), Buffer.from('last')]
const BORDERS = [0, 1, 64, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 3 * FRAME_BYTES]
const TAMPERED = [
  'KEY_UNKNOWN',
  'SEAL_FRAME_MALFORMED',
  'SEAL_FRAME_REFUSED',
  'SEAL_HEADER_REFUSED',
  'SEAL_NOT_SEALED',
  'SEAL_TRUNCATED',
  'SEAL_VERSION',
]

/** The code that `stored` is refused with; undefined when it opened. Anything but our own errors is thrown on. */
function refusal(stored: Buffer, expected: StreamIdentity | undefined = sampleIdentity): string | undefined {
  try {
    unsealBytes(stored, keyOf, expected, 'the sample')
    return undefined
  } catch (error) {
    if (error instanceof SealRefusedError || error instanceof UnknownDataKeyError) return error.code
    throw error
  }
}

/** What a pipe passed on before it ended, and how it ended. */
async function pipeOutcome(stored: Buffer): Promise<{ frames: string[]; code: string | undefined }> {
  const frames: string[] = []
  try {
    for await (const plaintext of unsealPipe(chunksOf(stored, [7, 200, 1]), keyOf, sampleIdentity, 'the sample')) {
      frames.push(plaintext.toString())
    }
    return { frames, code: undefined }
  } catch (error) {
    if (error instanceof SealRefusedError || error instanceof UnknownDataKeyError) return { frames, code: error.code }
    throw error
  }
}

async function* failing(): AsyncGenerator<Uint8Array> {
  yield Buffer.alloc(FRAME_BYTES + 5)
  throw new Error('the disk went away')
}

/** Which frame holds the byte at `offset`; -1 for the header. */
function frameAt({ frames }: SampleStream, offset: number): number {
  let end = HEADER_BYTES
  if (offset < end) return -1
  return frames.findIndex((frame) => offset < (end += frame.length))
}

describe.each(SUITE_NAMES)('%s', (suite) => {
  const options = (): SealOptions => ({ suite, dataKey: testKey('one'), identity: sampleIdentity, compressionLevel: 0 })

  test('every flip of one bit is refused, and no plaintext from the changed frame on is passed on', async () => {
    const sample = sealFrames(suite, plaintexts)
    const codes = new Set<string>()
    for (let bit = 0; bit < sample.stored.length * 8; bit += 1) {
      const changed = Buffer.from(sample.stored)
      changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      const code = refusal(changed)
      codes.add(code ?? `bit ${bit} was not noticed`)
      // The pipe is checked at one bit in each byte: it shares the checks, not the walk from frame to frame.
      if (bit % 8 !== (bit >> 3) % 8) continue
      const piped = await pipeOutcome(changed)
      expect(piped.code).toBe(code)
      expect(piped.frames.length).toBeLessThanOrEqual(Math.max(0, frameAt(sample, bit >> 3)))
      expect(piped.frames).toEqual(plaintexts.slice(0, piped.frames.length).map(String))
    }
    expect([...codes].toSorted()).toEqual(TAMPERED)
  })

  test('every truncation is refused as one', async () => {
    const { stored } = sealFrames(suite, plaintexts)
    for (let length = 0; length < stored.length; length += 1) {
      expect(refusal(stored.subarray(0, length))).toBe('SEAL_TRUNCATED')
      expect((await pipeOutcome(stored.subarray(0, length))).code).toBe('SEAL_TRUNCATED')
    }
  })

  test('every appended byte is refused', async () => {
    const { stored } = sealFrames(suite, plaintexts)
    for (let byte = 0; byte < 256; byte += 1) {
      const longer = Buffer.concat([stored, Buffer.from([byte])])
      expect(refusal(longer)).toBe('SEAL_TRAILING_BYTES')
      expect((await pipeOutcome(longer)).code).toBe('SEAL_TRAILING_BYTES')
    }
  })

  test('any other sequence of the same frames is refused', async () => {
    const four = ['a', 'b', 'c', 'd'].map((text) => Buffer.from(text.repeat(20)))
    const { header, frames } = sealFrames(suite, four)
    const order = fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 6 })
    await fc.assert(
      fc.asyncProperty(order, async (indexes) => {
        fc.pre(indexes.join('') !== '0123')
        const stored = Buffer.concat([header, ...indexes.map((i) => frames[i] ?? Buffer.alloc(0))])
        // Frames before the first wrong one are right; the stream as a whole never is.
        let right = 0
        while (indexes[right] === right) right += 1
        const expected =
          right === 4 ? 'SEAL_TRAILING_BYTES' : right === indexes.length ? 'SEAL_TRUNCATED' : 'SEAL_FRAME_REFUSED'
        expect(refusal(stored)).toBe(expected)
        const piped = await pipeOutcome(stored)
        expect(piped).toEqual({ frames: four.slice(0, right).map(String), code: expected })
      }),
      { numRuns: 200 },
    )
  })

  test('a frame of another stream under the same key is refused', () => {
    const one = sealFrames(suite, plaintexts)
    const other = sealFrames(suite, plaintexts)
    for (const [i] of plaintexts.entries()) {
      const mixed = one.frames.map((frame, j) => (i === j ? (other.frames[j] ?? frame) : frame))
      expect(refusal(Buffer.concat([one.header, ...mixed]))).toBe('SEAL_FRAME_REFUSED')
    }
    expect(refusal(Buffer.concat([other.header, ...one.frames]))).toBe('SEAL_FRAME_REFUSED')
  })

  test('an object under another name is refused', () => {
    const { stored } = sealFrames(suite, plaintexts)
    const others: StreamIdentity[] = [
      { kind: 'pack', backupId: '00112233445566aa', ordinal: 8 },
      { kind: 'pack', backupId: '00112233445566ab', ordinal: 7 },
      { kind: 'file-list', backupId: '00112233445566aa', ordinal: 7 },
      { kind: 'other', streamId: `00112233445566aa00000007${'00'.repeat(4)}` },
    ]
    for (const other of others) expect(refusal(stored, other)).toBe('SEAL_IDENTITY')
    expect(unsealBytes(stored, keyOf, undefined, 'a lone file').toString()).toBe(plaintexts.map(String).join(''))
  })

  test('another key is told at the header: one that is not known, and one that claims the same id', async () => {
    const { stored } = sealFrames(suite, plaintexts)
    expect(() => unsealBytes(stored, keyLookup(testKey('two')), sampleIdentity, 'it')).toThrow(UnknownDataKeyError)
    const wrong = keyLookup({ id: testKey('one').id, bytes: testKey('two').bytes })
    expect(() => unsealBytes(stored, wrong, sampleIdentity, 'it')).toThrow(
      expect.objectContaining({ code: 'SEAL_HEADER_REFUSED' }),
    )
    await expect(gather(unsealPipe(chunksOf(stored, []), wrong, sampleIdentity, 'it'))).rejects.toMatchObject({
      code: 'SEAL_HEADER_REFUSED',
    })
  })

  test.each(BORDERS)(
    '%i bytes come back, however they are cut, and both ways of sealing open each other',
    async (n) => {
      const sizes = fc.array(fc.integer({ min: 1, max: 2 * FRAME_BYTES }), { maxLength: 6 })
      const plaintext = Buffer.alloc(n)
      for (let i = 0; i < n; i += 997) plaintext[i] = i % 251
      await fc.assert(
        fc.asyncProperty(sizes, sizes, fc.constantFrom(0, 1), async (cutIn, cutOut, compressionLevel) => {
          const sealing = { ...options(), compressionLevel }
          const piped = await gather(sealPipe(chunksOf(plaintext, cutIn), sealing))
          const whole = sealBytes(plaintext, sealing)
          expect(piped.length).toBe(whole.length)
          for (const stored of [piped, whole]) {
            expect(unsealBytes(stored, keyOf, sampleIdentity, 'it').equals(plaintext)).toBe(true)
            const opened = await gather(unsealPipe(chunksOf(stored, cutOut), keyOf, sampleIdentity, 'it'))
            expect(opened.equals(plaintext)).toBe(true)
          }
        }),
        { numRuns: n > FRAME_BYTES + 1 ? 2 : 4 },
      )
    },
  )

  test('a pipe whose source fails has no last frame', async () => {
    const parts: Buffer[] = []
    const writing = (async () => {
      for await (const part of sealPipe(failing(), options())) parts.push(Buffer.from(part))
    })()
    await expect(writing).rejects.toThrow('the disk went away')
    expect(refusal(Buffer.concat(parts))).toBe('SEAL_TRUNCATED')
  })

  test('a source that is not read to its end is closed: after a refusal, and when nobody reads on', async () => {
    const { stored } = sealFrames(suite, plaintexts)
    const bad = Buffer.from(stored)
    bad[HEADER_BYTES + 20] = (bad[HEADER_BYTES + 20] ?? 0) ^ 1
    let closed = 0
    const source = async function* (bytes: Buffer): AsyncGenerator<Uint8Array> {
      try {
        yield* chunksOf(bytes, [50, 50, 50, 50, 50])
        yield Buffer.alloc(0)
      } finally {
        closed += 1
      }
    }
    await expect(unsealPipe(source(bad), keyOf, sampleIdentity, 'it').next()).rejects.toThrow(SealRefusedError)
    expect(closed).toBe(1)
    for await (const plaintext of unsealPipe(source(stored), keyOf, sampleIdentity, 'it')) {
      expect(plaintext).toEqual(plaintexts[0])
      break
    }
    expect(closed).toBe(2)
  })

  test('a decompression bomb is bounded by the declared length', () => {
    const stream = encodeStreamHeader(
      SUITES[suite],
      sampleIdentity,
      '00'.repeat(16),
      Buffer.alloc(32),
      Buffer.alloc(32),
    )
    const bomb = zstdCompressSync(Buffer.alloc(256 * FRAME_BYTES))
    for (const declared of [1, 4096, FRAME_BYTES]) {
      const stored = sealAsCompressed(stream, bomb, declared)
      const before = process.memoryUsage().external
      expect(() => openFrame(stream, stored, 0, 0, 'the bomb')).toThrow(
        expect.objectContaining({ code: 'SEAL_FRAME_MALFORMED' }),
      )
      expect(process.memoryUsage().external - before).toBeLessThan(16 * FRAME_BYTES)
    }
  })

  test('a compressed frame that is not exactly its declared length is refused', () => {
    const stream = encodeStreamHeader(
      SUITES[suite],
      sampleIdentity,
      '00'.repeat(16),
      Buffer.alloc(32),
      Buffer.alloc(32),
    )
    const payload = zstdCompressSync(Buffer.alloc(1000, 7))
    expect(openFrame(stream, sealAsCompressed(stream, payload, 1000), 0, 0, 'it').plaintext.length).toBe(1000)
    const malformed = [
      sealAsCompressed(stream, payload, 999),
      sealAsCompressed(stream, payload, 1001),
      sealAsCompressed(stream, payload, 0),
      sealAsCompressed(stream, payload.subarray(0, -2), 1000),
      sealAsCompressed(stream, Buffer.concat([payload, payload]), 1000),
      sealAsCompressed(stream, Buffer.from('not zstd at all'), 1000),
    ]
    for (const stored of malformed) {
      expect(() => openFrame(stream, stored, 0, 0, 'it')).toThrow(
        expect.objectContaining({ code: 'SEAL_FRAME_MALFORMED' }),
      )
    }
  })

  test('a frame is opened at its own index only', () => {
    const { header, frames } = sealFrames(suite, plaintexts)
    const opened = openStreamHeader(header, keyOf, sampleIdentity, 'it')
    for (const [i, frame] of frames.entries()) {
      expect(openFrame(opened, frame, 0, i, 'it').plaintext).toEqual(plaintexts[i])
      for (const index of [0, 1, 2, 3, 2 ** 32 + i, 2 ** 40].filter((other) => other !== i)) {
        expect(() => openFrame(opened, frame, 0, index, 'it')).toThrow(SealRefusedError)
      }
    }
  })
})

test('two streams of the same plaintext share no byte of salt, IV or ciphertext', () => {
  for (const suite of SUITE_NAMES) {
    const salts = new Set<string>()
    const bodies = new Set<string>()
    for (let i = 0; i < 50; i += 1) {
      const { header, frames } = sealFrames(suite, plaintexts)
      salts.add(header.toString('hex', 32, 64))
      for (const frame of frames) bodies.add(frame.toString('hex', 12, 28))
    }
    expect(salts.size).toBe(50)
    expect(bodies.size).toBe(150)
  }
})

test('another version or suite is said before anything is tried', () => {
  const { stored } = sealFrames('aes-256-gcm', plaintexts)
  const newer = Buffer.from(stored)
  newer.writeUInt16BE(2, 8)
  expect(refusal(newer)).toBe('SEAL_VERSION')
  const reserved = Buffer.from(stored)
  reserved.writeUInt8(1, 15)
  expect(refusal(reserved)).toBe('SEAL_VERSION')
  const third = Buffer.from(stored)
  third.writeUInt8(3, 10)
  expect(refusal(third)).toBe('SEAL_VERSION')
})

/** Index 0, by the format's text: what somebody who holds the keys could write. Flagged as compressed, of `declared` bytes. */
function sealAsCompressed(
  { header, keys }: Parameters<typeof sealFrame>[0],
  payload: Buffer,
  declared: number,
): Buffer {
  const start = Buffer.alloc(12)
  start.writeUInt8(1, 0)
  start.writeUInt32BE(declared, 4)
  const position = Buffer.alloc(8)
  if (header.suite === 1) {
    start.writeUInt32BE(payload.length + 16 - (payload.length % 16), 8)
    const iv = createCipheriv('aes-256-ecb', keys.iv, null).setAutoPadding(false).update(Buffer.alloc(16))
    const cipher = createCipheriv('aes-256-cbc', keys.encrypt, iv)
    const body = Buffer.concat([cipher.update(payload), cipher.final()])
    const mac = createHmac('sha256', keys.mac).update(header.bound).update(position).update(start).update(body)
    return Buffer.concat([start, body, mac.digest()])
  }
  start.writeUInt32BE(payload.length, 8)
  const cipher = createCipheriv('aes-256-gcm', keys.encrypt, Buffer.alloc(12))
  cipher.setAAD(Buffer.concat([header.bound, position, start]))
  const body = Buffer.concat([cipher.update(payload), cipher.final()])
  return Buffer.concat([start, body, cipher.getAuthTag()])
}
