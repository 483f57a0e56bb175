import { expect, test } from 'vitest'
import { AbortedError, OperationalError, RelayedError, abortError, problemOf, throwIfAborted } from './errors.ts'

class TideOutError extends OperationalError {
  override readonly code = 'TIDE_OUT'
  override readonly retry = 'after-operator'
  constructor(facts?: Record<string, unknown>, cause?: unknown) {
    super('the tide is out', { hint: 'wait for the moon', ...(facts === undefined ? {} : { facts }), cause })
  }
}

test('an error keeps its name, hint, facts and cause', () => {
  const cause = new Error('the moon')
  const error = new TideOutError({ depth: 3 }, cause)
  expect(error).toMatchObject({ name: 'TideOutError', hint: 'wait for the moon', facts: { depth: 3 }, cause })
  expect('cause' in new TideOutError()).toBe(false)
})

test('a problem survives JSON, with bigints as decimal text', () => {
  const facts = { lsn: 2n ** 64n - 1n, sizes: [1n, 2], nested: { bytes: 5n }, none: undefined, text: 'x' }
  const problem = problemOf(new TideOutError(facts))
  expect(problem).toEqual({
    code: 'TIDE_OUT',
    message: 'the tide is out',
    hint: 'wait for the moon',
    retry: 'after-operator',
    facts: { lsn: '18446744073709551615', sizes: ['1', 2], nested: { bytes: '5' }, text: 'x' },
  })
  expect(JSON.parse(JSON.stringify(problem))).toEqual(problem)
})

test.each([
  [new TypeError('x is not a function'), 'x is not a function'],
  ['thrown text', 'thrown text'],
  [undefined, 'undefined'],
  [null, 'null'],
])('anything else is a bug: %s', (thrown, message) => {
  expect(problemOf(thrown)).toMatchObject({ code: 'INTERNAL', retry: 'never', message, facts: {} })
})

test('a problem from elsewhere is the same problem again', () => {
  const problem = problemOf(new TideOutError({ bytes: 5n }))
  const relayed = new RelayedError(problem)
  expect(relayed).toBeInstanceOf(OperationalError)
  expect(problemOf(relayed)).toEqual(problem)
})

test('an abort is its reason where that is an operational error, else ABORTED with the reason as cause', () => {
  const reason = new TideOutError()
  expect(abortError(AbortSignal.abort(reason), 'the copy')).toBe(reason)
  const other = new Error('Ctrl-C')
  expect(abortError(AbortSignal.abort(other), 'the copy')).toMatchObject({ code: 'ABORTED', cause: other })
  expect(() => throwIfAborted(AbortSignal.abort(), 'the copy')).toThrow(AbortedError)
  expect(() => throwIfAborted(new AbortController().signal, 'the copy')).not.toThrow()
})
