import { inspect } from 'node:util'
import { expect, test } from 'vitest'
import { randomId } from './random-id.ts'
import { Redacted } from './redacted.ts'
import { GiB, KiB, MiB, formatBytes, formatDuration } from './units.ts'

test.each([
  [0, '0 B'],
  [1, '1 B'],
  [1023, '1023 B'],
  [KiB, '1.00 KiB'],
  [1536, '1.50 KiB'],
  [10 * KiB, '10.0 KiB'],
  [MiB, '1.00 MiB'],
  [250 * GiB, '250.0 GiB'],
  [5 * 1024 ** 5, '5.00 PiB'],
  [5 * 1024 ** 6, '5120.0 PiB'],
])('%i bytes are %s', (bytes, text) => expect(formatBytes(bytes)).toBe(text))

test.each([
  [0, '0.0s'],
  [830, '0.8s'],
  [59_900, '59.9s'],
  [60_000, '1m 0s'],
  [95_500, '1m 36s'],
  [3_599_600, '1h 0m 0s'],
  [90_061_000, '25h 1m 1s'],
])('%i ms are %s', (ms, text) => expect(formatDuration(ms)).toBe(text))

test('a secret does not show, however it is printed', () => {
  const secret = new Redacted('open sesame')
  const shown = [inspect({ secret }), String(secret), JSON.stringify({ secret }), inspect(secret, { showHidden: true })]
  for (const text of shown) expect(text).not.toContain('sesame')
  expect(secret.reveal()).toBe('open sesame')
})

test('random ids are 16 hex digits and do not repeat', () => {
  const ids = Array.from({ length: 1000 }, randomId)
  for (const id of ids) expect(id).toMatch(/^[0-9a-f]{16}$/)
  expect(new Set(ids).size).toBe(1000)
})
