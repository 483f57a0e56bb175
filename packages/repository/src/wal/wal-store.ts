/**
 * WAL segments in a repository.
 *
 * An object's name carries the digest of its contents: offering the same bytes again changes nothing, on any store, and
 * other bytes for the same segment become another object, which is an incident. Format: docs/repository-format.md, section 9.
 */
import { keyedDigest, timelineHistoryDigest, unsealBytes } from '@tidemark/crypto'
import { parseWalFileName, walFileName } from '@tidemark/kernel'
import { DocumentDamagedError, WalSegmentConflictError } from '../errors.ts'
import { ClusterLayout } from '../layout.ts'
import { isToBeReadBack, readBack } from '../set/read-back.ts'
import { MAX_BYTES, maxWalBytes } from '../records/bounds.ts'
import type { PackTable } from '../records/pack-table.ts'
import type { Repository } from '../set/repository.ts'

export interface WalPosition {
  readonly timeline: number
  readonly segment: bigint
  readonly segmentBytes: number
}

/** A cluster's WAL as the repositories name it. */
export class WalLayout {
  readonly layout: ClusterLayout
  readonly systemId: bigint

  constructor(cluster: string, systemId: string) {
    this.layout = new ClusterLayout(cluster, systemId)
    this.systemId = BigInt(systemId)
  }

  objectName(position: WalPosition, digest: string): string {
    return this.layout.walSegmentPrefix(position.timeline, position.segment, position.segmentBytes) + digest
  }
}

/**
 * Makes one sealed segment durable in one repository.
 *
 * @throws {WalSegmentConflictError} this segment is there with other contents; nothing was overwritten, both are kept.
 */
export async function storeWalSegment(
  repository: Repository,
  wal: WalLayout,
  position: WalPosition,
  sealed: { sealed: Uint8Array; digest: string; sha256: string },
  keys: { dataKey: (id: string) => Uint8Array; digestKey: Uint8Array },
  signal: AbortSignal,
): Promise<void> {
  const name = wal.objectName(position, sealed.digest)
  const outcome = await repository.store.putIfAbsent(name, sealed.sealed, { signal, sha256: sealed.sha256 })
  if (outcome === 'exists') {
    // Stored earlier, perhaps under another salt: what is there has to open, or it proves nothing.
    const relative = name.slice(wal.layout.folder.length)
    await readWalSegment(repository, wal, relative, position.segmentBytes, keys, signal)
  } else if (isToBeReadBack(repository)) {
    await readBack(repository, name, sealed.sealed.length, sealed.sha256, signal)
  }
  const prefix = wal.layout.walSegmentPrefix(position.timeline, position.segment, position.segmentBytes)
  const names: string[] = []
  for await (const entry of repository.store.list(prefix, { signal })) names.push(entry.name)
  if (names.some((other) => other !== name)) {
    throw new WalSegmentConflictError(walFileName(position.timeline, position.segment, position.segmentBytes), names)
  }
}

/** Header, frame header, one block, the shorter tag. */
const SHORTEST_STREAM = 160 + 12 + 16

/** Which WAL and history objects of a pack table are not in the repository; one listing per folder, held against the names as both go by. */
export async function missingWal(
  repository: Repository,
  layout: ClusterLayout,
  { wal, history }: Pick<PackTable, 'wal' | 'history'>,
  signal: AbortSignal,
): Promise<string[]> {
  const missing: string[] = []
  let next = 0
  while (next < wal.length) {
    const first = wal.at(next) ?? ''
    const folder = first.slice(0, first.lastIndexOf('/') + 1)
    const inFolder = (name: string | undefined): name is string => name?.startsWith(folder) === true
    const startAfter = layout.folder + first.slice(0, -1)
    for await (const { name, size } of repository.store.list(layout.folder + folder, { signal, startAfter })) {
      const relative = name.slice(layout.folder.length)
      let wanted = wal.at(next)
      for (; inFolder(wanted) && wanted < relative; wanted = wal.at(next)) {
        missing.push(wanted)
        next += 1
      }
      if (!inFolder(wanted)) break
      if (wanted !== relative) continue
      // Shorter than a header and a frame is no sealed stream, whatever it is.
      if (size <= SHORTEST_STREAM) missing.push(wanted)
      next += 1
    }
    for (let wanted = wal.at(next); inFolder(wanted); wanted = wal.at(next)) {
      missing.push(wanted)
      next += 1
    }
  }
  for (const name of history) {
    const found = await repository.store.stat(layout.folder + name, signal)
    if (found === undefined || found.size <= SHORTEST_STREAM) missing.push(name)
  }
  return missing
}

/**
 * The bytes of one archived segment.
 *
 * @param relativeName as the pack table has it. @throws {SealRefusedError} @throws {DocumentDamagedError} its digest is not the named one.
 */
export async function readWalSegment(
  repository: Repository,
  wal: WalLayout,
  relativeName: string,
  segmentBytes: number,
  keys: { dataKey: (id: string) => Uint8Array; digestKey: Uint8Array },
  signal: AbortSignal,
): Promise<{ fileName: string; bytes: Buffer }> {
  const maxBytes = maxWalBytes(segmentBytes)
  const stored = await repository.store.get(wal.layout.folder + relativeName, { signal, maxBytes })
  const [fileName = '', digest = ''] = relativeName.slice(relativeName.lastIndexOf('/') + 1).split('-')
  const position = parseWalFileName(fileName, segmentBytes)
  const what = `WAL segment ${fileName} in ${repository.name}`
  const identity = {
    kind: 'wal',
    systemId: wal.systemId,
    ...position,
    from: 0,
    to: segmentBytes,
    segmentBytes,
    digest,
  } as const
  const bytes = unsealBytes(stored, keys.dataKey, identity, what)
  if (bytes.length !== segmentBytes) throw new DocumentDamagedError(what, `it has ${bytes.length} bytes`)
  if (keyedDigest(keys.digestKey, 'wal', bytes).toString('hex') !== digest)
    throw new DocumentDamagedError(what, 'its contents are not those its name says')
  return { fileName, bytes }
}

/** A timeline history file of the pack table. @throws {SealRefusedError} @throws {DocumentDamagedError} */
export async function readTimelineHistory(
  repository: Repository,
  wal: WalLayout,
  relativeName: string,
  keys: { dataKey: (id: string) => Uint8Array; digestKey: Uint8Array },
  signal: AbortSignal,
): Promise<{ fileName: string; bytes: Buffer }> {
  const maxBytes = MAX_BYTES.history
  const stored = await repository.store.get(wal.layout.folder + relativeName, { signal, maxBytes })
  const [fileName = '', digest = ''] = relativeName.slice(relativeName.lastIndexOf('/') + 1).split('-')
  const what = `${fileName} in ${repository.name}`
  const bytes = unsealBytes(stored, keys.dataKey, { kind: 'other', streamId: digest }, what)
  const place = { systemId: wal.systemId, timeline: Number.parseInt(fileName, 16) }
  if (timelineHistoryDigest(keys.digestKey, place, bytes).toString('hex') !== digest)
    throw new DocumentDamagedError(what, 'its contents are not those its name says')
  return { fileName, bytes }
}
