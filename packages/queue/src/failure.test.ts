import { expect, test } from 'vitest'
import { UnrecoverableError } from 'bullmq'
import type { Problem } from '@tidemark/contracts'
import { jobError, problemFromFailedReason } from './failure.ts'
import { assertSuitable } from './redis.ts'
import { requestDigest } from './request-digest.ts'

const problem: Problem = { code: 'WRONG_KEY', message: 'm', hint: 'h', retry: 'never', facts: { key: 'k1' } }

test('a problem survives the queue, and only retry backoff may be tried again', () => {
  for (const retry of ['never', 'after-operator', 'backoff'] as const) {
    const error = jobError({ ...problem, retry }, undefined)
    expect(problemFromFailedReason(error.message)).toEqual({ ...problem, retry })
    expect(error instanceof UnrecoverableError).toBe(retry !== 'backoff')
  }
})

test('what is no problem of ours still shows as one', () => {
  expect(problemFromFailedReason('{"half":')).toMatchObject({ code: 'INTERNAL', message: '{"half":' })
  expect(problemFromFailedReason('job stalled more than allowable limit')).toMatchObject({ code: 'WORKER_LOST' })
})

test('requests that mean the same have the same digest, in any order of keys', () => {
  expect(requestDigest({ a: 1, b: { c: [1, 2], d: 2 } })).toBe(requestDigest({ b: { d: 2, c: [1, 2] }, a: 1 }))
  expect(requestDigest({ a: [1, 2] })).not.toBe(requestDigest({ a: [2, 1] }))
})

function infoOf(version: string): Map<string, string> {
  return new Map(Object.entries({ redis_version: version, maxmemory_policy: 'noeviction', aof_enabled: '1' }))
}

test.each(['6.2.0', '7.0.15', '8.4.0'])('Redis %s is suitable', (version) => {
  expect(() => assertSuitable(infoOf(version))).not.toThrow()
})

test.each(['6.0.16', '5.9.9', ''])('Redis %j is too old', (version) => {
  expect(() => assertSuitable(infoOf(version))).toThrow(/version/)
})
