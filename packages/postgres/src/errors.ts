import { OperationalError, type Retry } from '@tidemark/kernel'

/**
 * What can go wrong between us and a PostgreSQL server.
 *
 * Which class is raised is decided from SQLSTATE or Node's error code (translate-error.ts), never
 * from message text: servers answer in their own language (lc_messages). Every hint names the
 * command or SQL that mends the cause.
 */

/** No TCP connection, or no PostgreSQL behind it. */
export class DatabaseUnreachableError extends OperationalError {
  override readonly code = 'PG_UNREACHABLE'
  override readonly retry = 'backoff'
  constructor(facts: { host: string; port: number; reason: string }, cause?: unknown) {
    super(`PostgreSQL at ${facts.host}:${facts.port} cannot be reached (${facts.reason})`, {
      hint: 'check that the server runs (pg_isready), listen_addresses and port in postgresql.conf, firewalls and DNS',
      facts,
      cause,
    })
  }
}

/** The TCP connection stands, but TLS could not be agreed on or the certificate is not trusted. */
export class TlsFailedError extends OperationalError {
  override readonly code = 'PG_TLS_FAILED'
  override readonly retry = 'after-operator'
  constructor(facts: { host: string; port: number; reason: string }, cause?: unknown) {
    super(`TLS with PostgreSQL at ${facts.host}:${facts.port} failed (${facts.reason})`, {
      hint: 'check ssl = on and the certificate on the server (SHOW ssl; SHOW ssl_cert_file) and the CA given to Tidemark',
      facts,
      cause,
    })
  }
}

/** Wrong or missing password, unknown role or database, or refused by pg_hba.conf. */
export class AuthenticationFailedError extends OperationalError {
  override readonly code = 'PG_AUTH_FAILED'
  override readonly retry = 'after-operator'
  constructor(facts: { user: string; database: string; sqlState?: string; serverMessage?: string }, cause?: unknown) {
    super(
      `PostgreSQL refused the login of role ${JSON.stringify(facts.user)} (${facts.serverMessage ?? 'no reason'})`,
      {
        hint:
          `check the password (ALTER ROLE "${facts.user}" PASSWORD '…'), that the role has LOGIN, and a matching line in ` +
          `pg_hba.conf (SELECT * FROM pg_hba_file_rules; for backups one whose database is "replication"), then SELECT pg_reload_conf()`,
        facts,
        cause,
      },
    )
  }
}

/** The role may log in but may not start a walsender. */
export class ReplicationRightMissingError extends OperationalError {
  override readonly code = 'PG_NO_REPLICATION_RIGHT'
  override readonly retry = 'after-operator'
  constructor(facts: { user: string }, cause?: unknown) {
    super(`role ${JSON.stringify(facts.user)} may not use replication`, {
      hint: `ALTER ROLE "${facts.user}" REPLICATION;`,
      facts,
      cause,
    })
  }
}

/** An established connection broke, or its peer fell silent past a deadline. */
export class ConnectionLostError extends OperationalError {
  override readonly code = 'PG_CONNECTION_LOST'
  override readonly retry = 'backoff'
  constructor(facts: { host: string; port: number; during: string; reason: string }, cause?: unknown) {
    super(
      `the connection to PostgreSQL at ${facts.host}:${facts.port} was lost during ${facts.during}: ${facts.reason}`,
      {
        hint: "read the server's log for a crash or a terminated walsender, and check the network between the two hosts",
        facts,
        cause,
      },
    )
  }
}

/** The server is stopping, crashed under us, or is still starting: 57P01, 57P02, 57P03. */
export class ServerShutdownError extends OperationalError {
  override readonly code = 'PG_SHUTDOWN'
  override readonly retry = 'backoff'
  constructor(facts: { host: string; port: number; sqlState?: string; serverMessage?: string }, cause?: unknown) {
    super(`PostgreSQL at ${facts.host}:${facts.port} is not taking work (${facts.serverMessage ?? 'it is stopping'})`, {
      hint: 'wait until the server has started (pg_isready), then run it again; if nobody stopped it, read its log',
      facts,
      cause,
    })
  }
}

/** 53300 on a replication connection: every walsender is taken. */
export class WalSendersExhaustedError extends OperationalError {
  override readonly code = 'PG_TOO_MANY_WAL_SENDERS'
  override readonly retry = 'backoff'
  constructor(cause?: unknown) {
    super('no walsender is free on the server', {
      hint: 'SELECT pid, application_name, state FROM pg_stat_replication; raise max_wal_senders (ALTER SYSTEM SET max_wal_senders = 10; restart)',
      cause,
    })
  }
}

/** 53300 on an ordinary connection: max_connections or the role's limit is reached. */
export class TooManyConnectionsError extends OperationalError {
  override readonly code = 'PG_TOO_MANY_CONNECTIONS'
  override readonly retry = 'backoff'
  constructor(cause?: unknown) {
    super('the server has no connection left for us', {
      hint: 'SELECT count(*) FROM pg_stat_activity; raise max_connections, or the role: ALTER ROLE … CONNECTION LIMIT -1',
      cause,
    })
  }
}

/** 53400, or 55000 with max_replication_slots = 0: no replication slot can be made. */
export class SlotsExhaustedError extends OperationalError {
  override readonly code = 'PG_SLOTS_EXHAUSTED'
  override readonly retry = 'backoff'
  constructor(cause?: unknown) {
    super('no replication slot is free on the server', {
      hint: "SELECT slot_name, active FROM pg_replication_slots; drop unused ones (SELECT pg_drop_replication_slot('…')) or ALTER SYSTEM SET max_replication_slots = 10; restart",
      cause,
    })
  }
}

/** The node is a standby; base backups are taken from the primary only. */
export class StandbyRefusedError extends OperationalError {
  override readonly code = 'PG_IS_STANDBY'
  override readonly retry = 'after-operator'
  constructor(facts: { host: string; port: number }) {
    super(`PostgreSQL at ${facts.host}:${facts.port} is a standby; backups are taken from the primary`, {
      hint: 'name the primary (SELECT sender_host, sender_port FROM pg_stat_wal_receiver shows where this standby receives from)',
      facts,
    })
  }
}

/** Two logins with one address reached two servers: what they send does not belong together. */
export class ServerMismatchError extends OperationalError {
  override readonly code = 'PG_SERVER_MISMATCH'
  override readonly retry = 'after-operator'
  constructor(facts: { host: string; port: number; during: string; expected: string; found: string }) {
    super(
      `${facts.host}:${facts.port} leads to more than one server: ${facts.during} reached ${facts.found}, the checks before it ${facts.expected}`,
      {
        hint: 'name the nodes themselves under nodes: (the primary is found among them), not a load balancer or a name with several addresses',
        facts,
      },
    )
  }
}

/** The WAL stream would count as a synchronous standby: commits of the source would wait for us. */
export class SyncStandbyRefusedError extends OperationalError {
  override readonly code = 'PG_SYNC_STANDBY'
  override readonly retry = 'after-operator'
  constructor(facts: { applicationName: string; synchronousStandbyNames: string }) {
    super(
      `the server would treat ${JSON.stringify(facts.applicationName)} as a synchronous standby; its commits would wait for the backup`,
      {
        hint: "name the standbys instead of '*': ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (standby1)'; SELECT pg_reload_conf();",
        facts,
      },
    )
  }
}

/** 58P01: the WAL asked for is no longer on the server. */
export class WalRemovedError extends OperationalError {
  override readonly code = 'PG_WAL_REMOVED'
  override readonly retry = 'never'
  constructor(facts: { serverMessage?: string }, cause?: unknown) {
    super(`the server no longer has the WAL asked for (${facts.serverMessage ?? 'file missing'})`, {
      hint: 'take a new base backup; to keep WAL longer: a replication slot, max_slot_wal_keep_size = -1, or a larger wal_keep_size',
      facts,
      cause,
    })
  }
}

/** Waiting for WAL that should have come by itself. */
export class WalStalledError extends OperationalError {
  override readonly code = 'PG_WAL_STALLED'
  override readonly retry = 'backoff'
  constructor(facts: { waitedMs: number; wanted: string; received: string }) {
    super(`WAL up to ${facts.wanted} did not arrive within ${facts.waitedMs} ms (received up to ${facts.received})`, {
      hint: 'SELECT * FROM pg_stat_replication on the server; SELECT pg_switch_wal() completes the open segment',
      facts,
    })
  }
}

/** The server ended the stream: its timeline is over (a promotion), or it shut down cleanly. */
export class WalStreamEndedError extends OperationalError {
  override readonly code = 'PG_WAL_STREAM_ENDED'
  override readonly retry = 'backoff'
  constructor(facts: { timeline: number; received: string; nextTimeline?: string }) {
    super(
      facts.nextTimeline === undefined
        ? `the server ended the WAL stream at ${facts.received}`
        : `timeline ${facts.timeline} ended at ${facts.received}; the server goes on with ${facts.nextTimeline}`,
      {
        hint: 'find the present primary (a promotion or a clean shutdown ends the stream) and start again there',
        facts,
      },
    )
  }
}

/** The bytes received are not what the protocol promises; nothing of them may be trusted. */
export class StreamMalformedError extends OperationalError {
  override readonly code = 'PG_STREAM_MALFORMED'
  override readonly retry = 'never'
  constructor(what: string, facts: Readonly<Record<string, unknown>> = {}) {
    super(`PostgreSQL sent something unexpected: ${what}`, {
      hint: 'check that host and port lead to PostgreSQL 15–18 itself and not to a pooler or proxy (pgbouncer cannot replicate)',
      facts,
    })
  }
}

/** A file of a data directory or backup cannot be read as what its name says. */
export class PostgresFileInvalidError extends OperationalError {
  override readonly code = 'PG_FILE_INVALID'
  override readonly retry = 'never'
  constructor(file: string, problem: string, facts: Readonly<Record<string, unknown>> = {}) {
    super(`${file} is not valid: ${problem}`, {
      hint: 'the file is damaged or from an unsupported version (15–18 are): use another backup and verify this one',
      facts: { file, problem, ...facts },
    })
  }
}

/** Every other error the server answered with; SQLSTATE decides whether to try again. */
export class ServerError extends OperationalError {
  override readonly code = 'PG_ERROR'
  override readonly retry: Retry
  constructor(facts: { sqlState: string; serverMessage: string; detail?: string }, retry: Retry, cause?: unknown) {
    super(`PostgreSQL answered ${facts.sqlState}: ${facts.serverMessage}`, {
      hint: `look up SQLSTATE ${facts.sqlState} in "PostgreSQL Error Codes" and read the server's log at this time`,
      facts,
      cause,
    })
    this.retry = retry
  }
}
