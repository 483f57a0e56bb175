import { randomId, throwIfAborted } from '@tidemark/kernel'
import { DatabaseError } from 'pg'
import { parseByteSetting } from './byte-setting.ts'
import type { ConnectionTarget } from './connection-target.ts'
import { SlotsExhaustedError } from './errors.ts'
import { connectReplication, type ReplicationConnection } from './replication-connection.ts'
import { WalStream, type WalStreamOptions } from './wal-stream.ts'

/**
 * Opens a walsender of its own and makes a temporary physical slot that keeps all WAL from now on
 * (RESERVE_WAL: from the last checkpoint's redo point). Do this before BASE_BACKUP.
 *
 * @throws {SlotsExhaustedError}
 * @throws {WalSendersExhaustedError}
 * @throws {ServerMismatchError} @throws {StandbyRefusedError} this login reached another server than the checks.
 */
export async function openWalStream(
  target: ConnectionTarget,
  signal: AbortSignal,
  options: WalStreamOptions = {},
): Promise<WalStream> {
  const connection = await connectReplication(target, signal)
  try {
    const { systemId } = options
    const identity = await (systemId === undefined
      ? connection.identifySystem()
      : connection.requirePrimary(systemId, 'the WAL stream'))
    const segmentBytes = parseByteSetting(await connection.show('wal_segment_size'))
    const synchronousStandbyNames = await connection.show('synchronous_standby_names')
    const applicationName = await connection.show('application_name')
    const slotName = `tidemark_tmp_${randomId()}`
    await createSlot(connection, slotName)
    throwIfAborted(signal, 'opening a WAL stream')
    return new WalStream(
      connection,
      { slotName, applicationName, segmentBytes, identity, synchronousStandbyNames },
      options,
      signal,
    )
  } catch (error) {
    await connection[Symbol.asyncDispose]()
    throw error
  }
}

async function createSlot(connection: ReplicationConnection, slotName: string): Promise<void> {
  try {
    await connection.command(`CREATE_REPLICATION_SLOT "${slotName}" TEMPORARY PHYSICAL (RESERVE_WAL)`)
  } catch (error) {
    const cause = error instanceof Error ? error.cause : undefined
    // 55000: max_replication_slots = 0 (CheckSlotRequirements, src/backend/replication/slot.c).
    if (cause instanceof DatabaseError && cause.code === '55000') throw new SlotsExhaustedError(cause)
    throw error
  }
}
