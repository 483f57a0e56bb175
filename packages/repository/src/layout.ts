/** Where things lie in a repository. The only place that spells object names: docs/repository-format.md, section 1. */
import { walFileName } from '@tidemark/kernel'

export const MARKER = 'tidemark.json'
export const KEYS = 'keys/'
export const CLUSTERS = 'clusters/'
/** Where capability probes write; to be ignored. */
export const SCRATCH = 'scratch/'

/** A cluster's name in the configuration and in object names. */
export const CLUSTER_NAME = /^[a-z0-9][a-z0-9-]{0,47}$/
export const BACKUP_ID = /^[0-9a-f]{16}$/

export function keyringName(number: number, random: string): string {
  return `${KEYS}keyring-${number}-${random}.json`
}

/** The number of a keyring's object name, or undefined for a name that is not one. */
export function keyringNumber(name: string): number | undefined {
  const match = /^keys\/keyring-(\d{1,9})-[0-9a-f]+\.json$/.exec(name)
  return match === null ? undefined : Number(match[1])
}

/** The folder of one database system under one configured name. */
export class ClusterLayout {
  readonly folder: string
  constructor(cluster: string, systemId: string) {
    if (!CLUSTER_NAME.test(cluster)) throw new RangeError(`not a cluster name: ${JSON.stringify(cluster)}`)
    if (!/^\d{1,20}$/.test(systemId)) throw new RangeError(`not a system id: ${JSON.stringify(systemId)}`)
    this.folder = `${CLUSTERS}${cluster}/${systemId}/`
  }

  get records(): string {
    return `${this.folder}records/`
  }

  record(stoppedAt: Date, backupId: string): string {
    return `${this.records}${compactTime(stoppedAt)}-${backupId}.json`
  }

  get begins(): string {
    return `${this.folder}begin/`
  }

  /** What the names of one attempt's begin objects start with. */
  beginsOf(backupId: string): string {
    return `${this.begins}${backupId}-`
  }

  begin(backupId: string, number: number): string {
    return `${this.beginsOf(backupId)}${number}.json`
  }

  /** Marks of sweeps: one for each folder that was emptied, or found empty. */
  get swept(): string {
    return `${this.folder}swept/`
  }

  sweptMark(backupId: string): string {
    return this.swept + backupId
  }

  /** What lies below it is one folder for each backup or attempt. */
  get bases(): string {
    return `${this.folder}base/`
  }

  /** The backup's own folder: packs, file list and pack table. */
  base(backupId: string): string {
    return `${this.bases}${backupId}/`
  }

  /** The folder of one timeline's log file. */
  walFolder(timeline: number, segment: bigint, segmentBytes: number): string {
    return `${this.folder}wal/${hex8(timeline)}/${walFileName(timeline, segment, segmentBytes).slice(8, 16)}/`
  }

  /** What the names of all archived contents of one segment start with. */
  walSegmentPrefix(timeline: number, segment: bigint, segmentBytes: number): string {
    return `${this.walFolder(timeline, segment, segmentBytes)}${walFileName(timeline, segment, segmentBytes)}-`
  }

  timelineHistory(timeline: number, digest: string): string {
    return `${this.folder}wal/${hex8(timeline)}.history-${digest}`
  }
}

export const PACK_TABLE = 'packs.jsonl'
/** The sealed document about the source. */
export const SOURCE = 'source'

export function packName(ordinal: number): string {
  return `pack-${String(ordinal).padStart(5, '0')}`
}

export function fileListName(ordinal: number): string {
  return `files-${String(ordinal).padStart(5, '0')}`
}

/** `20261122T142700123Z`: sorts by time as text. */
export function compactTime(time: Date): string {
  return time.toISOString().replaceAll(/[-:.]/g, '')
}

/** The parts of a record's object name, or undefined for a name that is not one. */
export function parseRecordName(
  name: string,
): { cluster: string; systemId: string; stoppedAt: string; backupId: string } | undefined {
  const match = /^clusters\/([a-z0-9-]+)\/(\d+)\/records\/(\d{8}T\d{9}Z)-([0-9a-f]{16})\.json$/.exec(name)
  const [, cluster, systemId, stoppedAt, backupId] = match ?? []
  if (cluster === undefined || systemId === undefined || stoppedAt === undefined || backupId === undefined)
    return undefined
  return { cluster, systemId, stoppedAt, backupId }
}

/** The parts of a begin object's name, or undefined for a name that is not one. */
export function parseBeginName(name: string): { backupId: string; number: number } | undefined {
  const [, backupId, number] = /\/begin\/([0-9a-f]{16})-(\d{1,9})\.json$/.exec(name) ?? []
  return backupId === undefined ? undefined : { backupId, number: Number(number) }
}

function hex8(value: number): string {
  return value.toString(16).toUpperCase().padStart(8, '0')
}
