import { expect, test } from 'vitest'
import { freeBuffer, ownArrayBuffer } from './free-buffer.ts'
import { KiB } from './units.ts'

test('a large buffer is given back, with every view of it', () => {
  const buffer = new ArrayBuffer(256 * KiB)
  const view = new Uint8Array(buffer, 10, 20)
  freeBuffer(view)
  expect({ detached: buffer.detached, length: view.length }).toEqual({ detached: true, length: 0 })
  expect(() => freeBuffer(view)).not.toThrow()
})

test('a small one, which may be a slice of a shared pool, is left alone', () => {
  const neighbour = Buffer.from('neighbour')
  freeBuffer(Buffer.from('small'))
  freeBuffer(new Uint8Array(256 * KiB - 1))
  expect(neighbour.toString()).toBe('neighbour')
})

test('shared memory is left to those who share it', () => {
  const shared = new Uint8Array(new SharedArrayBuffer(512 * KiB))
  freeBuffer(shared)
  expect(shared.length).toBe(512 * KiB)
})

test('a buffer that shares its memory is copied, one that owns it is not', () => {
  const own = Buffer.from(new ArrayBuffer(10))
  expect(ownArrayBuffer(own)).toBe(own.buffer)
  const shared = own.subarray(2, 5)
  expect(ownArrayBuffer(shared)).not.toBe(own.buffer)
  expect(ownArrayBuffer(shared).byteLength).toBe(3)
})
