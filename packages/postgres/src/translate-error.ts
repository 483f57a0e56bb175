import { OperationalError } from '@tidemark/kernel'
import { DatabaseError } from 'pg'
import { databaseOf, type ConnectionTarget } from './connection-target.ts'
import {
  AuthenticationFailedError,
  DatabaseUnreachableError,
  ReplicationRightMissingError,
  ServerError,
  ServerShutdownError,
  SlotsExhaustedError,
  StreamMalformedError,
  TlsFailedError,
  TooManyConnectionsError,
  WalRemovedError,
  WalSendersExhaustedError,
} from './errors.ts'

/** Which kind of connection the error came from: 53300 and 42501 mean different things on each. */
export type ConnectionMode = 'sql' | 'replication'

/**
 * An ErrorResponse of the server as one of our errors, by SQLSTATE alone
 * (src/backend/utils/errcodes.txt).
 */
export function translateServerError(
  error: DatabaseError,
  target: ConnectionTarget,
  mode: ConnectionMode,
  phase: 'login' | 'command',
): OperationalError {
  const sqlState = error.code
  // pg makes a DatabaseError without SQLSTATE only for a message type it does not know.
  if (sqlState === undefined) return new StreamMalformedError('a message of unknown type')
  const { host, port, user } = target
  const said = { sqlState, serverMessage: error.message }
  switch (sqlState) {
    case '28000': // invalid_authorization_specification: pg_hba.conf, unknown role, no LOGIN
    case '28P01': // invalid_password
    case '3D000': // invalid_catalog_name
      return new AuthenticationFailedError({ user, database: databaseOf(target), ...said }, error)
    case '42501': // insufficient_privilege: InitPostgres for a walsender, no CONNECT for a database
      if (mode === 'replication') return new ReplicationRightMissingError({ user }, error)
      if (phase === 'login')
        return new AuthenticationFailedError({ user, database: databaseOf(target), ...said }, error)
      break
    case '53300': // too_many_connections
      return mode === 'replication' ? new WalSendersExhaustedError(error) : new TooManyConnectionsError(error)
    case '53400': // configuration_limit_exceeded: ReplicationSlotCreate
      if (mode === 'replication') return new SlotsExhaustedError(error)
      break
    case '57P01': // admin_shutdown
    case '57P02': // crash_shutdown
    case '57P03': // cannot_connect_now
      return new ServerShutdownError({ host, port, ...said }, error)
    case '58P01': // undefined_file: XLogFileRead failed, the segment is gone
      if (mode === 'replication') return new WalRemovedError({ serverMessage: error.message }, error)
      break
    default:
  }
  const facts = error.detail === undefined ? said : { ...said, detail: error.detail }
  return new ServerError(facts, isPassing(sqlState) ? 'backoff' : 'never', error)
}

/** Classes 08, 40, 53, 55, 57, 58: connections, rollbacks, resources, locks, intervention, I/O. */
function isPassing(sqlState: string): boolean {
  return ['08', '40', '53', '55', '57', '58'].includes(sqlState.slice(0, 2))
}

/** A failure before the server had accepted the login. `tlsReached`: the TCP connection stood and TLS was asked for. */
export function translateConnectError(
  error: unknown,
  target: ConnectionTarget,
  mode: ConnectionMode,
  tlsPending: boolean,
): Error {
  if (error instanceof OperationalError) return error
  if (error instanceof DatabaseError) return translateServerError(error, target, mode, 'login')
  const { host, port } = target
  const code = nodeErrorCode(error)
  const reason = code ?? (error instanceof Error ? error.message : String(error))
  if (tlsPending || (code !== undefined && isTlsCode(code))) return new TlsFailedError({ host, port, reason }, error)
  return new DatabaseUnreachableError({ host, port, reason }, error)
}

export function nodeErrorCode(error: unknown): string | undefined {
  const code: unknown = error instanceof Error && 'code' in error ? error.code : undefined
  return typeof code === 'string' ? code : undefined
}

function isTlsCode(code: string): boolean {
  return /^(ERR_TLS|ERR_SSL|CERT_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_)/.test(code)
}
