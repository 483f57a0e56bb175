import { expect, test } from 'vitest'
import { countsAsSyncStandby } from './sync-standby-guard.ts'

test.each([
  ['', false],
  ['*', true],
  ['standby1', false],
  ['FIRST 1 (standby1, *)', true],
  ['ANY 2 (a, Tidemark_Main, b)', true],
  ['1 ("tidemark_main")', true],
  ['"tidemark main", "a""b"', false],
  ['tidemark_main_2', false],
  ['"*"', true],
])('synchronous_standby_names = %j matches tidemark_main: %s', (names, matches) => {
  expect(countsAsSyncStandby('tidemark_main', names)).toBe(matches)
})
