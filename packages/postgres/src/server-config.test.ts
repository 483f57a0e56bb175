import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import { parseByteSetting } from './byte-setting.ts'
import { appendSettings, parseServerConfig, parseSettingLine, quoteSetting, removeSettings } from './server-config.ts'

test.each([
  ["restore_command = 'cp /a/%f %p'", 'restore_command', 'cp /a/%f %p'],
  ['port 5432 # the default', 'port', '5432'],
  ["  Search_Path\t=\t'a''b\\'c' # x", 'Search_Path', "a'b'c"],
  ["pg_stat_statements.max='10'", 'pg_stat_statements.max', '10'],
  ["log_line_prefix = '%m # [%p] '", 'log_line_prefix', '%m # [%p] '],
  ["a = '\\101\\t\\\\'", 'a', 'A\t\\'],
  ['work_mem=4MB', 'work_mem', '4MB'],
  ["empty = ''", 'empty', ''],
])('%s', (text, name, value) => {
  expect(parseSettingLine(text)).toEqual({ name, value })
})

test.each(['# port = 1', '', '   ', "a = 'open", '= 3', 'port 1 2', '1port = 2'])('%j sets nothing', (text) => {
  expect(parseSettingLine(text)).toBeUndefined()
})

test('whatever is quoted is read back', () => {
  const value = fc.string({ unit: fc.constantFrom("'", '\\', 'a', ' ', '#', '=', 'é', '%', '1', 'n', '\t') })
  fc.assert(
    fc.property(value, (text) => {
      expect(parseSettingLine(`x = ${quoteSetting(text)}`)?.value).toBe(text)
    }),
  )
})

test('a value with a line break cannot smuggle in another setting', () => {
  expect(() => quoteSetting("x'\narchive_command = 'rm")).toThrow(RangeError)
})

test('removing keeps comments and other lines; appending outranks what stood before', () => {
  const before =
    "# Do not edit\nRecovery_Target_Time = '2026-01-01'\nport = 1\n# recovery_target_time kept as a comment\n"
  const cleaned = removeSettings(before, ['recovery_target_time'])
  expect(cleaned).toBe('# Do not edit\nport = 1\n# recovery_target_time kept as a comment\n')
  const after = appendSettings(cleaned, 'written by a restore', { port: '2', restore_command: "get '%f'" })
  expect(parseServerConfig(after)).toEqual(
    new Map([
      ['port', '2'],
      ['restore_command', "get '%f'"],
    ]),
  )
  expect(after).toContain("# written by a restore\nport = '2'\nrestore_command = 'get ''%f'''\n")
})

test('sizes are read as SHOW prints them', () => {
  expect(['16MB', '1GB', '8192', '64kB', '16777216B'].map(parseByteSetting)).toEqual([
    2 ** 24,
    2 ** 30,
    8192,
    2 ** 16,
    2 ** 24,
  ])
  expect(() => parseByteSetting('16 apples')).toThrow(RangeError)
})
