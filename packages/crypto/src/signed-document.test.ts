import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import { SignatureRefusedError } from './errors.ts'
import { DocumentSigner, generateSigningSeed, openSignedDocument } from './signed-document.ts'
import { seedProperties } from './testing/seed.ts'

seedProperties()

const signer = new DocumentSigner(Buffer.alloc(32, 1))

function why(bytes: Uint8Array, trusted = signer.publicKey): string {
  try {
    return `opened: ${JSON.stringify(openSignedDocument(bytes, trusted, 'the document'))}`
  } catch (error) {
    if (error instanceof SignatureRefusedError) return String(error.facts['why'])
    throw error
  }
}

test('what was signed comes back, whatever JSON it is', () => {
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      const payload = { value }
      const document = signer.sign(payload)
      expect(document.toString().split('\n')).toHaveLength(3)
      expect(openSignedDocument(document, signer.publicKey, 'it')).toEqual(JSON.parse(JSON.stringify(payload)))
    }),
  )
})

test('every flip of one bit is refused', () => {
  const document = signer.sign({ format: 'tidemark-test', text: 'ümläut', number: 12 })
  const reasons = new Set<string>()
  for (let bit = 0; bit < document.length * 8; bit += 1) {
    const changed = Buffer.from(document)
    changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7))
    reasons.add(why(changed))
  }
  expect([...reasons].toSorted()).toEqual(['shape', 'signature', 'signer'])
})

test('every truncation, and anything appended, is refused', () => {
  const document = signer.sign({ a: 1 })
  for (let length = 0; length < document.length; length += 1) expect(why(document.subarray(0, length))).toBe('shape')
  for (const more of ['\n', ' ', 'x', '{}\n', document.toString()]) {
    expect(why(Buffer.concat([document, Buffer.from(more)]))).toBe('shape')
  }
})

test('a second spelling of a valid document is refused', () => {
  const [payload = '', trailer = ''] = signer.sign({ a: 1 }).toString().split('\n')
  const { signature, publicKey } = JSON.parse(trailer) as { signature: string; publicKey: string }
  const spellings = [
    JSON.stringify({ publicKey, signature }),
    JSON.stringify({ signature, publicKey, note: 'x' }),
    ` ${trailer}`,
    JSON.stringify({ signature: signature.replaceAll('=', ''), publicKey }),
    JSON.stringify({ signature: signature.replaceAll('+', '-').replaceAll('/', '_'), publicKey }).replace('==', ''),
    JSON.stringify({ signature: `${signature}AAAA`, publicKey }),
    'null',
    '[]',
  ]
  for (const spelling of spellings) expect(why(Buffer.from(`${payload}\n${spelling}\n`))).toBe('shape')
})

test('only the pinned signer is believed, not the one that the document names', () => {
  const other = new DocumentSigner(generateSigningSeed())
  expect(why(other.sign({ a: 1 }))).toBe('signer')
  expect(why(signer.sign({ a: 1 }), other.publicKey)).toBe('signer')
  const [payload = '', trailer = ''] = other.sign({ a: 1 }).toString().split('\n')
  const renamed = { ...(JSON.parse(trailer) as object), publicKey: signer.publicKey }
  expect(why(Buffer.from(`${payload}\n${JSON.stringify(renamed)}\n`))).toBe('signature')
})

test('a signature of one document does not fit another', () => {
  const [first = ''] = signer.sign({ a: 1 }).toString().split('\n')
  const [, trailer = ''] = signer.sign({ a: 2 }).toString().split('\n')
  expect(why(Buffer.from(`${first}\n${trailer}\n`))).toBe('signature')
})
