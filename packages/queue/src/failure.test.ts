import { expect, test } from 'vitest'
import { UnrecoverableError } from 'bullmq'
import type { Problem } from '@tidemark/contracts'
import { jobError, problemFromFailedReason } from './failure.ts'
import { assertSuitable } from './redis.ts'
import { RETRY_POLICIES, patientDelayMs } from './retry-policy.ts'
import { requestDigest } from './request-digest.ts'

const problem: Problem = { code: 'WRONG_KEY', message: 'm', hint: 'h', retry: 'never', facts: { key: 'k1' } }

test('a problem survives the queue, and only retry backoff may be tried again; of owed work, what an operator sets right too', () => {
  for (const retry of ['never', 'after-operator', 'backoff'] as const) {
    const error = jobError({ ...problem, retry }, undefined, false)
    expect(problemFromFailedReason(error.message)).toEqual({ ...problem, retry })
    expect(error instanceof UnrecoverableError).toBe(retry !== 'backoff')
    expect(jobError({ ...problem, retry }, undefined, true) instanceof UnrecoverableError).toBe(retry === 'never')
  }
})

test('pauses of owed work double up to 11 minutes, half of each random, and its tries last for days', () => {
  const { attempts, backoffMs } = RETRY_POLICIES.owed
  expect([1, 2, 3, 7, 8, 300].map((tries) => patientDelayMs(tries, backoffMs, 0))).toEqual([
    10_000, 20_000, 40_000, 640_000, 640_000, 640_000,
  ])
  expect(patientDelayMs(1, backoffMs, 0.999_999)).toBe(5_000)
  let shortestMs = 0
  for (let tries = 1; tries < attempts; tries += 1) shortestMs += patientDelayMs(tries, backoffMs, 0.999_999)
  expect(shortestMs).toBeGreaterThan(30 * 3_600_000)
  expect(RETRY_POLICIES.maintenance.maxStartedAttempts).toBeGreaterThan(attempts)
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
