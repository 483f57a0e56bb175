import { parseLsn, type Lsn } from '@tidemark/kernel'
import { createConnection } from 'node:net'
import type { Client } from 'pg'
import { ClientSession } from './connection.ts'
import type { ConnectionTarget } from './connection-target.ts'
import { ServerMismatchError, StandbyRefusedError, StreamMalformedError } from './errors.ts'
import { openClient } from './open-client.ts'
import { cancelKeyOf, wireOf, type Wire } from './wire.ts'

const commandTimeoutMs = 60_000
const cancelTimeoutMs = 5_000

export interface SystemIdentity {
  /** 64 bits, as a decimal string. */
  readonly systemId: string
  readonly timeline: number
  /** End of the WAL flushed to disk at the time of asking. */
  readonly flushLsn: Lsn
}

function ignore(): void {}

/** A walsender of our own (src/backend/replication/walsender.c). It understands replication commands, not SQL. */
export class ReplicationConnection extends ClientSession {
  constructor(client: Client, target: ConnectionTarget, signal: AbortSignal) {
    super(client, target, 'replication', signal)
  }

  /** For the streaming commands of this package only. */
  get wire(): Wire {
    return wireOf(this.client)
  }

  /** The walsender's process id: the key into pg_stat_replication. */
  get pid(): number {
    return cancelKeyOf(this.client).processId
  }

  /** A command that answers with rows. Values stay text: type parsers know nothing about LSNs. */
  async command(text: string, timeoutMs = commandTimeoutMs): Promise<Record<string, string | null>[]> {
    const query = { text, types: { getTypeParser: () => (value: string) => value } }
    const work = this.client.query<Record<string, string | null>>(query as never)
    return (await this.withDeadline(work, timeoutMs, text.split(' ', 1)[0] ?? text)).rows
  }

  async identifySystem(): Promise<SystemIdentity> {
    const [row] = await this.command('IDENTIFY_SYSTEM')
    if (!row?.['systemid'] || !row['timeline'] || !row['xlogpos']) throw new StreamMalformedError('IDENTIFY_SYSTEM')
    return { systemId: row['systemid'], timeline: Number(row['timeline']), flushLsn: parseLsn(row['xlogpos']) }
  }

  /**
   * Holds this login against an earlier one: a load balancer may have led it elsewhere. A standby has its primary's system id.
   *
   * @throws {ServerMismatchError} @throws {StandbyRefusedError}
   */
  async requirePrimary(systemId: string, during: string): Promise<SystemIdentity> {
    const { host, port } = this.target
    const identity = await this.identifySystem()
    if (identity.systemId !== systemId) {
      const expected = `system ${systemId}`
      throw new ServerMismatchError({ host, port, during, expected, found: `system ${identity.systemId}` })
    }
    if ((await this.show('in_hot_standby')) === 'on') throw new StandbyRefusedError({ host, port })
    return identity
  }

  /** The value of a setting as SHOW prints it. */
  async show(name: string): Promise<string> {
    const [row] = await this.command(`SHOW ${name}`)
    return (row && Object.values(row)[0]) ?? ''
  }

  /**
   * Submits a command whose answer is a stream. pg hands its events to the active query as well as
   * to listeners on the wire; ours listens on the wire, where none is left out.
   */
  submit(text: string): void {
    const command = {
      submit: (): void => this.wire.query(text),
      handleRowDescription: ignore,
      handleDataRow: ignore,
      handleCommandComplete: ignore,
      handleCopyData: ignore,
      handleReadyForQuery: ignore,
      handleError: ignore,
      handleEmptyQuery: ignore,
      handlePortalSuspended: ignore,
      handleCopyInResponse: ignore,
    }
    this.client.query(command)
  }

  /**
   * Asks the server to cancel what this walsender is doing (a CancelRequest on a connection of its
   * own, src/backend/postmaster/postmaster.c). A walsender that waits for a checkpoint would
   * otherwise notice a closed socket only at its first write. Best effort: errors are ignored.
   */
  requestCancel(): void {
    const { processId, secretKey } = cancelKeyOf(this.client)
    const { host, port } = this.target
    const packet = Buffer.alloc(16)
    packet.writeInt32BE(16, 0)
    packet.writeInt32BE(80_877_102, 4) // CANCEL_REQUEST_CODE, src/include/libpq/pqcomm.h
    packet.writeInt32BE(processId, 8)
    packet.writeInt32BE(secretKey, 12)
    const socket = host.startsWith('/') ? createConnection(`${host}/.s.PGSQL.${port}`) : createConnection(port, host)
    socket.on('error', () => socket.destroy())
    socket.setTimeout(cancelTimeoutMs, () => socket.destroy())
    socket.resume()
    socket.end(packet)
  }
}

/**
 * Logs in as a walsender. `signal` is bound for the connection's life.
 *
 * @throws {ReplicationRightMissingError} the role lacks REPLICATION.
 * @throws {AuthenticationFailedError} also when pg_hba.conf has no line for `replication`.
 * @throws {WalSendersExhaustedError}
 */
export async function connectReplication(
  target: ConnectionTarget,
  signal: AbortSignal,
): Promise<ReplicationConnection> {
  return new ReplicationConnection(await openClient(target, 'replication', 0, signal), target, signal)
}
