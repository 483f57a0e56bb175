/** A restore plan, for programs and for people. */
import { formatBytes, formatDuration } from '@tidemark/kernel'
import type { RestorePlan } from '@tidemark/operations'
import { printFacts } from './output.ts'

/** What `restore plan --json` prints: the whole plan, without keys and contents of configuration files. */
export function planFacts(plan: RestorePlan): object {
  const { record, table, source, request } = plan
  return {
    backupId: record.backupId,
    cluster: record.cluster,
    systemId: record.systemId,
    stoppedAt: record.stoppedAt,
    startLsn: record.startLsn,
    stopLsn: record.stopLsn,
    timeline: record.timeline,
    parents: record.parents,
    wal: record.wal,
    postgres: record.server.version,
    repository: plan.sources[0]?.name ?? '',
    repositories: plan.sources.map(({ name }) => name),
    mode: plan.mode,
    files: record.totals.files,
    bytes: record.totals.bytes,
    fetchBytes: plan.fetchBytes,
    walSegments: table.wal.length,
    disks: plan.disks,
    estimate: plan.estimate,
    targetDirectory: request.targetDirectory,
    profile: request.profile,
    owner: plan.owner,
    // Without the identities of directories, which mean nothing outside of this process.
    tablespaces: plan.tablespaces.map(({ oid, name, kind, location, target }) => ({
      oid,
      name,
      kind,
      location,
      target,
    })),
    dataKeys: record.dataKeys,
    minimumSettings: record.server.minimumSettings,
    preloadLibraries: record.server.preloadLibraries,
    pgCtl: plan.host.pgCtl,
    findings: plan.host.findings,
    configuration: {
      use: request.configuration ?? 'stand-in',
      captured: source.configuration.map(({ kind, path, inDataDirectory }) => ({ kind, path, inDataDirectory })),
      unread: source.unread,
    },
  }
}

export function printPlan(plan: RestorePlan): void {
  const { record, table, source, request, estimate, host } = plan
  const outside = source.configuration.filter(({ inDataDirectory }) => !inDataDirectory)
  printFacts({
    backup: `${record.backupId} of ${record.cluster}, ${record.server.version.split(' on ')[0]}`,
    'brings back': `the state at ${record.stoppedAt} (LSN ${record.stopLsn}), on a new timeline after ${record.timeline}`,
    'reads from': `${plan.sources[0]?.name ?? ''}: ${formatBytes(plan.fetchBytes)} and ${table.wal.length} WAL segments`,
    writes: `${record.totals.files} files, ${formatBytes(record.totals.bytes)}, into ${request.targetDirectory}`,
    ...(plan.mode === 'new' ? {} : { mode: `${plan.mode}: what is there already is not fetched again` }),
    disk: plan.disks
      .map(
        (disk) =>
          `${formatBytes(disk.needBytes)} needed, ${formatBytes(disk.freeBytes)} free (${disk.paths.join(', ')})`,
      )
      .join('; '),
    ...(estimate === undefined
      ? {}
      : { takes: `about ${formatDuration(estimate.seconds * 1000)} (${estimate.basis})` }),
    profile:
      request.profile === 'clone' ? 'clone: isolated from its source' : 'production: with the settings of its source',
    ...(plan.tablespaces.length === 0 ? {} : { tablespaces: plan.tablespaces.map(describeTablespace).join('; ') }),
    'needs keys': record.dataKeys.join(', '),
    'needs settings': Object.entries(record.server.minimumSettings)
      .map(([name, value]) => `${name} ≥ ${value}`)
      .join(', '),
    'preload libraries': record.server.preloadLibraries.join(', ') || 'none',
    ...(outside.length === 0 ? {} : { 'configuration outside': outside.map(({ path }) => path).join(', ') }),
    'starts with': host.pgCtl ?? 'no binaries of this version here',
    ...(host.findings.length === 0 ? {} : { 'look at': host.findings.map(({ message }) => message).join('; ') }),
  })
}

function describeTablespace({ oid, name, kind, location, target }: RestorePlan['tablespaces'][number]): string {
  const called = name ?? oid
  if (target === undefined) return `${called} in place`
  if (kind === 'replayed') return `${called} made again by recovery at ${target.path}`
  return location === target.path ? `${called} at ${target.path}` : `${called} from ${location} to ${target.path}`
}
