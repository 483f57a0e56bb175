/**
 * The format document is enough: programs that share no code with Tidemark open its streams.
 *
 * Suite 1 with the `openssl` command alone, suite 2 with read_suite2.py. They follow docs/repository-format.md, section 2, to the letter.
 */
import { createHash, randomBytes } from 'node:crypto'
import { FRAME_BYTES, HEADER_BYTES, type SuiteName, keyedDigest, sealBytes } from '@tidemark/crypto'
import { expect, test } from 'vitest'
import { runProgram } from './run-program.ts'

/** Anybody has this key. */
const TEST_DATA_KEY = createHash('sha256').update('tidemark test data key').digest()
const SIZES = [0, 1, 15, 16, 17, 5_000, FRAME_BYTES, FRAME_BYTES + 1]

function seal(suite: SuiteName, plaintext: Uint8Array, compressionLevel = 0): Buffer {
  return sealBytes(plaintext, {
    suite,
    dataKey: { id: 'ab'.repeat(16), bytes: TEST_DATA_KEY },
    identity: { kind: 'pack', backupId: '0011223344556677', ordinal: 1 },
    compressionLevel,
  })
}

async function openssl(args: readonly string[], input: Uint8Array = Buffer.alloc(0)): Promise<Buffer> {
  const { code, stdout, stderr } = await runProgram('openssl', args, input)
  if (code !== 0) throw new Error(`openssl ${args[0]}: ${stderr}`)
  return stdout
}

const hkdf = (salt: Buffer, info: Buffer): Promise<Buffer> => {
  const options = {
    digest: 'SHA256',
    hexkey: TEST_DATA_KEY.toString('hex'),
    hexsalt: salt.toString('hex'),
    hexinfo: info.toString('hex'),
  }
  const given = Object.entries(options).flatMap(([name, value]) => ['-kdfopt', `${name}:${value}`])
  return openssl(['kdf', '-keylen', '32', ...given, '-binary', 'HKDF'])
}

const hmac = (key: Buffer, input: Buffer): Promise<Buffer> =>
  openssl(['dgst', '-sha256', '-mac', 'HMAC', '-macopt', `hexkey:${key.toString('hex')}`, '-binary'], input)

interface OpenedFrame {
  readonly flags: number
  readonly plaintextBytes: number
  readonly payload: Buffer
}

/** Sections 2.1 to 2.3 for suite 1; every computation on secrets is a call of the openssl command. */
async function openSuite1(stored: Buffer): Promise<OpenedFrame[]> {
  expect(stored.toString('ascii', 0, 8)).toBe('TIDEMARK')
  expect([...stored.subarray(8, 11)]).toEqual([0, 1, 1])
  const bound = stored.subarray(0, 128)
  const salt = stored.subarray(32, 64)
  const keyFor = (role: string): Promise<Buffer> =>
    hkdf(salt, Buffer.concat([Buffer.from('tidemark'), stored.subarray(8, 11), Buffer.from(role)]))
  expect(await hmac(await keyFor('header'), bound)).toEqual(stored.subarray(128, 160))
  const [encrypt, mac, iv] = await Promise.all([keyFor('encrypt'), keyFor('mac'), keyFor('iv')])
  const frames: OpenedFrame[] = []
  let at = 160
  for (let index = 0; ; index += 1) {
    const start = stored.subarray(at, at + 12)
    const ciphertext = stored.subarray(at + 12, at + 12 + start.readUInt32BE(8))
    const tag = stored.subarray(at + 12 + ciphertext.length, at + 44 + ciphertext.length)
    const position = Buffer.alloc(8)
    position.writeBigUInt64BE(BigInt(index))
    expect(await hmac(mac, Buffer.concat([bound, position, start, ciphertext]))).toEqual(tag)
    const block = Buffer.concat([Buffer.alloc(8), position])
    const frameIv = await openssl(['enc', '-aes-256-ecb', '-nopad', '-K', iv.toString('hex')], block)
    const cbc = ['enc', '-d', '-aes-256-cbc', '-K', encrypt.toString('hex'), '-iv', frameIv.toString('hex')]
    const flags = start.readUInt8(0)
    frames.push({ flags, plaintextBytes: start.readUInt32BE(4), payload: await openssl(cbc, ciphertext) })
    at += 44 + ciphertext.length
    if ((flags & 2) !== 0) break
  }
  expect(at).toBe(stored.length)
  return frames
}

test.each(SIZES)('the openssl command opens a suite 1 stream of %i bytes', async (size) => {
  const plaintext = randomBytes(size)
  const frames = await openSuite1(seal('aes-256-cbc-hmac-sha-256', plaintext))
  expect(Buffer.concat(frames.map(({ payload }) => payload)).equals(plaintext)).toBe(true)
  expect(frames.map(({ payload }) => payload.length)).toEqual(frames.map(({ plaintextBytes }) => plaintextBytes))
  expect(frames.map(({ flags }) => flags)).toEqual([...Array(frames.length - 1).fill(0), 2])
})

test('the zstd command opens the payload of a compressed frame', async (context) => {
  const present = await runProgram('zstd', ['--version'], Buffer.alloc(0)).catch((error: unknown) => error)
  if (present instanceof Error) context.skip(`the zstd command is not installed: ${present.message}`)
  const plaintext = Buffer.from('the tide marks the sand where it has been. '.repeat(30_000))
  const frames = await openSuite1(seal('aes-256-cbc-hmac-sha-256', plaintext, 3))
  const plaintexts: Buffer[] = []
  for (const { flags, payload } of frames) {
    expect(flags & 1).toBe(1)
    const { code, stdout } = await runProgram('zstd', ['-d', '-c'], payload)
    expect(code).toBe(0)
    plaintexts.push(stdout)
  }
  expect(plaintexts.map(({ length }) => length)).toEqual(frames.map(({ plaintextBytes }) => plaintextBytes))
  expect(Buffer.concat(plaintexts).equals(plaintext)).toBe(true)
})

const SCRIPT = new URL('read_suite2.py', import.meta.url).pathname
const readSuite2 = (stored: Buffer, key = TEST_DATA_KEY): ReturnType<typeof runProgram> =>
  runProgram('python3', [SCRIPT, key.toString('hex')], stored)

test.each(SIZES)('the Python script opens a suite 2 stream of %i bytes', async (size) => {
  const plaintext = randomBytes(size)
  const { code, stdout, stderr } = await readSuite2(seal('aes-256-gcm', plaintext))
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  expect(stdout.equals(plaintext)).toBe(true)
})

test('the Python script refuses what Tidemark refuses', async () => {
  const stored = seal('aes-256-gcm', randomBytes(100))
  const flip = (at: number): Buffer => {
    const changed = Buffer.from(stored)
    changed[at] = (changed[at] ?? 0) ^ 1
    return changed
  }
  const refused: [Buffer, RegExp][] = [
    [flip(0), /not a sealed stream/],
    [flip(9), /version/],
    [flip(70), /header/],
    [flip(HEADER_BYTES + 1), /frame 0/],
    [flip(HEADER_BYTES + 20), /frame 0/],
    [flip(stored.length - 1), /frame 0/],
    [stored.subarray(0, -1), /truncated/],
    [Buffer.concat([stored, Buffer.alloc(1)]), /trailing/],
  ]
  for (const [bytes, reason] of refused) {
    const { code, stderr } = await readSuite2(bytes)
    expect(code).toBe(1)
    expect(stderr).toMatch(reason)
  }
  expect((await readSuite2(stored, randomBytes(32))).stderr).toMatch(/header/)
})

test('the openssl command makes the keyed digest of a WAL name', async () => {
  const segment = randomBytes(65_536)
  const digest = await hmac(TEST_DATA_KEY, Buffer.concat([Buffer.from('wal'), segment]))
  expect(keyedDigest(TEST_DATA_KEY, 'wal', segment)).toEqual(digest.subarray(0, 16))
})
