import { lsn } from '@tidemark/kernel'
import { expect, test } from 'vitest'
import { decodeWalMessage, encodeStandbyStatus } from './wal-messages.ts'

test('WAL data and keepalives are told apart', () => {
  const data = Buffer.concat([Buffer.from('w'), Buffer.alloc(24), Buffer.from('abc')])
  data.writeBigUInt64BE(0x1_0000_0000n, 1)
  data.writeBigUInt64BE(0x1_0000_0003n, 9)
  expect(decodeWalMessage(data)).toEqual({
    kind: 'wal',
    startLsn: 0x1_0000_0000n,
    endLsn: 0x1_0000_0003n,
    bytes: Buffer.from('abc'),
  })

  const keepalive = Buffer.concat([Buffer.from('k'), Buffer.alloc(17)])
  keepalive.writeBigUInt64BE(5n, 1)
  keepalive[17] = 1
  expect(decodeWalMessage(keepalive)).toEqual({ kind: 'keepalive', endLsn: 5n, replyRequested: true })
  expect(() => decodeWalMessage(Buffer.from('x'))).toThrow(/unknown message/)
})

test('a status is 34 bytes, with the time counted from 2000', () => {
  const status = { writtenLsn: lsn(7n), flushedLsn: lsn(3n), replyWanted: true }
  const bytes = encodeStandbyStatus(status, Date.UTC(2000, 0, 1, 0, 0, 1))
  expect(bytes.length).toBe(34)
  expect(bytes[0]).toBe('r'.charCodeAt(0))
  expect([bytes.readBigUInt64BE(1), bytes.readBigUInt64BE(9), bytes.readBigUInt64BE(17)]).toEqual([7n, 3n, 0n])
  expect(bytes.readBigInt64BE(25)).toBe(1_000_000n)
  expect(bytes[33]).toBe(1)
})
