import { DatabaseError } from 'pg'
import { expect, test } from 'vitest'
import type { ConnectionTarget } from './connection-target.ts'
import { translateConnectError, translateServerError, type ConnectionMode } from './translate-error.ts'

const target: ConnectionTarget = { host: 'db', port: 5432, user: 'backup' }

function serverError(sqlState: string): DatabaseError {
  const error = new DatabaseError('Nachricht in irgendeiner Sprache', 0, 'error')
  error.code = sqlState
  return error
}

test.each<[string, ConnectionMode, 'login' | 'command', string, string]>([
  ['28P01', 'sql', 'login', 'PG_AUTH_FAILED', 'after-operator'],
  ['28000', 'replication', 'login', 'PG_AUTH_FAILED', 'after-operator'],
  ['3D000', 'sql', 'login', 'PG_AUTH_FAILED', 'after-operator'],
  ['42501', 'replication', 'login', 'PG_NO_REPLICATION_RIGHT', 'after-operator'],
  ['42501', 'sql', 'command', 'PG_ERROR', 'never'],
  ['53300', 'replication', 'login', 'PG_TOO_MANY_WAL_SENDERS', 'backoff'],
  ['53300', 'sql', 'login', 'PG_TOO_MANY_CONNECTIONS', 'backoff'],
  ['53400', 'replication', 'command', 'PG_SLOTS_EXHAUSTED', 'backoff'],
  ['57P01', 'replication', 'command', 'PG_SHUTDOWN', 'backoff'],
  ['57P03', 'sql', 'login', 'PG_SHUTDOWN', 'backoff'],
  ['58P01', 'replication', 'command', 'PG_WAL_REMOVED', 'never'],
  ['42601', 'sql', 'command', 'PG_ERROR', 'never'],
  ['40001', 'sql', 'command', 'PG_ERROR', 'backoff'],
])('SQLSTATE %s on a %s connection during %s is %s, retry %s', (sqlState, mode, phase, code, retry) => {
  const error = translateServerError(serverError(sqlState), target, mode, phase)
  expect({ code: error.code, retry: error.retry }).toEqual({ code, retry })
  expect(error.hint.length).toBeGreaterThan(10)
})

test('a failure to connect is told from a failure of TLS by its code or its moment', () => {
  const refused = Object.assign(new Error('x'), { code: 'ECONNREFUSED' })
  const selfSigned = Object.assign(new Error('x'), { code: 'DEPTH_ZERO_SELF_SIGNED_CERT' })
  expect(translateConnectError(refused, target, 'sql', false)).toMatchObject({ code: 'PG_UNREACHABLE' })
  expect(translateConnectError(selfSigned, target, 'sql', false)).toMatchObject({ code: 'PG_TLS_FAILED' })
  expect(translateConnectError(new Error('no TLS there'), target, 'sql', true)).toMatchObject({ code: 'PG_TLS_FAILED' })
})
