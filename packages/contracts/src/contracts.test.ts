import { describe, expect, test } from 'vitest'
import {
  absolutePathSchema,
  backupJobSchema,
  kindOfOperation,
  newOperationId,
  operationIdFromDigest,
  operationIdSchema,
  operationSchema,
  parseQueueName,
  queueName,
  restoreRequestSchema,
  startBackupBodySchema,
  timestampSchema,
} from './index.ts'

const random = new Uint8Array(10).fill(0xab)

describe('operation ids', () => {
  test('sort by time within a kind and hold no colon, which BullMQ forbids', () => {
    const ids = [1, 2, 1_795_000_000_000, 1_795_000_000_001].map((ms) => newOperationId('backup', ms, random))
    expect([...ids].sort()).toEqual(ids)
    for (const id of ids) expect(operationIdSchema.safeParse(id).success).toBe(true)
    expect(ids.join('')).not.toContain(':')
  })

  test('the same digest always gives the same id, of the kind asked for', () => {
    const digest = new Uint8Array(32).fill(0xff)
    expect(operationIdFromDigest('restore', digest)).toBe(operationIdFromDigest('restore', digest))
    expect(kindOfOperation(operationIdFromDigest('restore', digest))).toBe('restore')
  })

  test('anything else is refused', () => {
    for (const id of ['backup-1', 'drop-01hzzzzzzzzzzzzzzzzzzzzzzz', 'backup-../../etc']) {
      expect(() => kindOfOperation(id)).toThrow(RangeError)
    }
  })
})

test('queue names are read back as they were written, dots in host names included', () => {
  expect(parseQueueName(queueName('backup'))).toEqual({ kind: 'backup' })
  expect(parseQueueName(queueName('restore', 'db1.example.net'))).toEqual({ kind: 'restore', host: 'db1.example.net' })
  expect(parseQueueName('restore.')).toBeUndefined()
  expect(parseQueueName('other')).toBeUndefined()
})

test('a backup job gets its defaults, and unknown keys are refused at every level', () => {
  const job = { operationId: newOperationId('backup', 1, random), cluster: 'main', requestedAt: '2026-11-22T14:00:00Z' }
  expect(backupJobSchema.parse(job).options).toEqual({ verifyAfter: true })
  expect(backupJobSchema.safeParse({ ...job, extra: 1 }).success).toBe(false)
  expect(backupJobSchema.safeParse({ ...job, options: { sped: 1 } }).success).toBe(false)
  expect(startBackupBodySchema.safeParse({ compressionLevel: 20 }).success).toBe(false)
})

test.each(['/', 'relative', '/a/../b', '/a//b', '/a/', '/a/.', '/a\0b', ''])('%j is no target directory', (path) => {
  expect(absolutePathSchema.safeParse(path).success).toBe(false)
})

test('a restore defaults to the profile that cannot touch its source', () => {
  const request = restoreRequestSchema.parse({ cluster: 'main', backupId: 'latest', targetDirectory: '/srv/restore' })
  expect(request.profile).toBe('clone')
})

test('times need their offset', () => {
  expect(timestampSchema.safeParse('2026-11-22T14:00:00').success).toBe(false)
  expect(timestampSchema.safeParse('2026-11-22T14:00:00+01:00').success).toBe(true)
})

test("an operation cannot carry another kind's result", () => {
  const operation = {
    id: newOperationId('restore', 1, random),
    kind: 'restore',
    cluster: 'main',
    state: 'succeeded',
    createdAt: '2026-11-22T14:00:00Z',
    attempts: 1,
  }
  expect(operationSchema.safeParse(operation).success).toBe(true)
  const result = { backupId: '0123456789abcdef', level: 'packs', repositories: [] }
  expect(operationSchema.safeParse({ ...operation, result }).success).toBe(false)
})
