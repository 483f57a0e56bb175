import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import { formatTablespaceMap, parseBackupLabel, parseTablespaceMap } from './backup-label.ts'

const label = `START WAL LOCATION: 0/4B000028 (file 00000001000000000000004B)
CHECKPOINT LOCATION: 0/4B000060
BACKUP METHOD: streamed
BACKUP FROM: primary
START TIME: 2026-11-22 14:59:00 UTC
LABEL: nightly: it's fine
START TIMELINE: 1
`

test('a backup_label is read', () => {
  expect(parseBackupLabel(label)).toEqual({
    startLsn: 0x4b000028n,
    startWalFile: '00000001000000000000004B',
    checkpointLsn: 0x4b000060n,
    startTimeline: 1,
    backupFrom: 'primary',
    startTime: '2026-11-22 14:59:00 UTC',
    label: "nightly: it's fine",
  })
  expect(parseBackupLabel(`${label}INCREMENTAL FROM LSN: 0/2000028\n`).incrementalFromLsn).toBe(0x2000028n)
})

test.each(['START WAL LOCATION', 'CHECKPOINT LOCATION', 'START TIMELINE'])(
  'a backup_label without %s is refused',
  (name) => {
    expect(() => parseBackupLabel(label.replace(name, 'OTHER'))).toThrow(/backup_label/)
  },
)

test('any path survives tablespace_map, line breaks and backslashes too', () => {
  const path = fc.string({ minLength: 1, unit: fc.constantFrom('/', 'a', ' ', '\\', '\n', '\r', 'é') })
  fc.assert(
    fc.property(fc.array(fc.record({ oid: fc.integer({ min: 1, max: 0xffff_ffff }), location: path })), (mappings) => {
      expect(parseTablespaceMap(formatTablespaceMap(mappings))).toEqual(mappings)
    }),
  )
})
