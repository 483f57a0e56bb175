import { inspect } from 'node:util'
import { expect, test } from 'vitest'
import { KeyMalformedError, SignatureRefusedError } from './errors.ts'
import { KeyEncryptionKey, generateKeyText, parseKeyEncryptionKey } from './key-encryption-key.ts'

const bytes = Buffer.from(Array.from({ length: 32 }, (_, i) => i * 7))

test.each([
  ['hex', bytes.toString('hex')],
  ['upper-case hex', bytes.toString('hex').toUpperCase()],
  ['base64', bytes.toString('base64')],
  ['base64 without its padding', bytes.toString('base64').replace('=', '')],
  ['base64url', bytes.toString('base64url')],
  ['hex with a line break, as from a file', `${bytes.toString('hex')}\n`],
])('a key may be given as %s', (_form, text) => {
  expect(parseKeyEncryptionKey(text, 'BACKUP_ENCRYPTION_KEY').id).toBe(new KeyEncryptionKey(bytes).id)
})

test.each([
  '',
  ' ',
  'secret',
  bytes.toString('hex').slice(1),
  `${bytes.toString('hex')}00`,
  bytes.subarray(1).toString('base64'),
  Buffer.alloc(33).toString('base64'),
  `${bytes.toString('hex').slice(0, 63)}g`,
])('%j is no key, and the error does not show it', (text) => {
  const refused = catchError(() => parseKeyEncryptionKey(text, 'BACKUP_ENCRYPTION_KEY'))
  expect(refused).toBeInstanceOf(KeyMalformedError)
  expect(inspect(refused)).not.toContain(text.trim() || 'nothing to hide')
})

test('a generated key is read back, and no two are equal', () => {
  const texts = Array.from({ length: 20 }, generateKeyText)
  expect(new Set(texts.map((text) => parseKeyEncryptionKey(text, 'it').id)).size).toBe(20)
})

test('a key shows neither itself nor its wrapping key when printed', () => {
  const kek = new KeyEncryptionKey(bytes)
  const shown = `${inspect(kek, { depth: 9, showHidden: true })} ${JSON.stringify(kek)}`
  expect(shown).toContain(kek.id)
  expect(shown).not.toContain(bytes.toString('hex').slice(0, 16))
})

test('a wrap opens for its purpose and key only, and every change is refused', () => {
  const kek = new KeyEncryptionKey(bytes)
  const secret = Buffer.alloc(32, 9)
  const wrap = kek.wrap(secret, 'tidemark wrap 1 digest-key')
  expect(kek.unwrap(wrap, 'tidemark wrap 1 digest-key')).toEqual(secret)
  expect(() => kek.unwrap(wrap, 'tidemark wrap 2 digest-key')).toThrow(SignatureRefusedError)
  expect(() => kek.unwrap(wrap, 'tidemark wrap 1 data-key 00')).toThrow(SignatureRefusedError)
  expect(() => new KeyEncryptionKey(secret).unwrap(wrap, 'tidemark wrap 1 digest-key')).toThrow(SignatureRefusedError)
  for (const field of ['nonce', 'sealed'] as const) {
    const raw = Buffer.from(wrap[field], 'base64')
    for (let bit = 0; bit < raw.length * 8; bit += 1) {
      const changed = Buffer.from(raw)
      changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      const bad = { ...wrap, [field]: changed.toString('base64') }
      expect(() => kek.unwrap(bad, 'tidemark wrap 1 digest-key')).toThrow(SignatureRefusedError)
    }
    const cut = { ...wrap, [field]: raw.subarray(1).toString('base64') }
    expect(() => kek.unwrap(cut, 'tidemark wrap 1 digest-key')).toThrow(SignatureRefusedError)
  }
})

test('no wrap repeats a nonce', () => {
  const kek = new KeyEncryptionKey(bytes)
  const nonces = Array.from({ length: 100 }, () => kek.wrap(Buffer.alloc(32), 'x').nonce)
  expect(new Set(nonces).size).toBe(100)
})

function catchError(run: () => unknown): unknown {
  try {
    return run()
  } catch (error) {
    return error
  }
}
