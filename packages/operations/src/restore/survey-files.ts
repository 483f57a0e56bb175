/** One pass over a backup's file list, for a plan that has tablespaces: how much goes where, and the tablespace_map. */
import { HEADER_BYTES, type Keyring } from '@tidemark/crypto'
import {
  type FileEntry,
  ClusterLayout,
  PACK_TAIL_BYTES,
  PackIndex,
  type Repository,
  readFileList,
} from '@tidemark/repository'
import type { BackupReader } from './fetch-pack.ts'
import { TABLESPACE_MAP } from './tablespace-map.ts'

export interface SurveyedFiles {
  /** Bytes of the files, by tablespace; '' is the data directory. */
  readonly bytes: ReadonlyMap<string, number>
  readonly files: ReadonlyMap<string, number>
  readonly tablespaceMap: Buffer
}

/** @throws {BackupIncompleteError} @throws {SealRefusedError} @throws {DocumentDamagedError} */
export async function surveyFiles(reader: BackupReader, keyring: Keyring, signal: AbortSignal): Promise<SurveyedFiles> {
  const { record, table } = reader
  return await reader.fromAny(signal, async (source) => {
    const bytes = new Map<string, number>()
    const files = new Map<string, number>()
    let tablespaceMap = Buffer.alloc(0)
    for await (const entry of readFileList(source, record, table, keyring.dataKey, signal)) {
      const oid = /^pg_tblspc\/(\d+)\//.exec(entry.path)?.[1] ?? ''
      bytes.set(oid, (bytes.get(oid) ?? 0) + entry.size)
      files.set(oid, (files.get(oid) ?? 0) + 1)
      if (entry.path === TABLESPACE_MAP && entry.type === 'file')
        tablespaceMap = await readSmallFile(source, entry, reader, keyring, signal)
    }
    return { bytes, files, tablespaceMap }
  })
}

/** A file of at most a few frames, each fetched alone. */
async function readSmallFile(
  source: Repository,
  entry: FileEntry,
  reader: BackupReader,
  keyring: Keyring,
  signal: AbortSignal,
): Promise<Buffer<ArrayBuffer>> {
  const { record, table } = reader
  const contents = Buffer.alloc(entry.size)
  for (const { pack, frame, frameOffset, length, fileOffset } of entry.extents) {
    const packEntry = table.packs.at(pack)
    if (packEntry === undefined) throw reader.incomplete(`pack ${pack} of its pack table`)
    await reader.explained(packEntry.name, source, async () => {
      const backupId = packEntry.backup ?? record.backupId
      const name = new ClusterLayout(record.cluster, record.systemId).base(backupId) + packEntry.name
      const ranged = (offset: number, end: number): Promise<Buffer> =>
        source.store.get(name, { signal, range: { offset, length: end - offset }, maxBytes: end - offset })
      const header = await ranged(0, HEADER_BYTES)
      const tail = await ranged(Math.max(0, packEntry.bytes - PACK_TAIL_BYTES), packEntry.bytes)
      const ordinal = Number(packEntry.name.slice('pack-'.length))
      const place = { backupId, ordinal, bytes: packEntry.bytes, salt: packEntry.salt }
      const index = new PackIndex(header, tail, place, keyring.dataKey, `${packEntry.name} in ${source.name}`)
      const from = index.offset(frame)
      const plaintext = index.open(frame, await ranged(from, index.offset(frame + 1)), from)
      plaintext.copy(contents, fileOffset, frameOffset, frameOffset + length)
    })
  }
  return contents
}
