import { execFileSync } from 'node:child_process'
import { resolve } from 'node:path'
import { type Command, InvalidArgumentError } from 'commander'
import type { RestoreResult } from '@tidemark/contracts'
import { formatBytes, formatDuration } from '@tidemark/kernel'
import { type Owner, type RestoreRequest, planConfigured, restoreConfigured } from '@tidemark/operations'
import { ApiClient } from '../api-client.ts'
import type { CliContext } from '../cli-context.ts'
import { printFacts, printJson } from '../output.ts'
import type { Act } from '../program.ts'
import { UsageError } from '../usage-error.ts'

interface RestoreFlags {
  readonly target: string
  readonly cluster?: string
  readonly repository?: string
  readonly asProduction?: true
  readonly allowDamaged?: true
  readonly owner?: Owner
  readonly local?: true
  readonly host?: string
}

export function addRestoreCommands(program: Command, act: Act): void {
  const restore = program.command('restore').description('bring a backup back')
  withCommonOptions(
    restore.command('plan').description('whether it can succeed, and what it needs; changes nothing'),
  ).action(act(plan))
  withCommonOptions(restore.command('run').description('plan, then copy; refuses anything but an empty directory'))
    .option('--local', 'do the work in this process, without API and Redis')
    .option('--host <name>', 'through the API: the host whose restore worker owns the target')
    .action(act(run))
}

function withCommonOptions(command: Command): Command {
  return command
    .argument('<backup>', 'id, beginning of an id, or latest')
    .requiredOption('--target <directory>', 'a new or empty directory')
    .option('--cluster <name>', 'whose backup')
    .option('--repository <name>', 'read from there (default: the first one that has all of it)')
    .option('--as-production', 'keep the settings of the source: it takes its place. Default is an isolated clone')
    .option('--allow-damaged', 'also a backup whose source had page checksum failures')
    .option('--owner <user[:group]>', 'as root: whom the files are to belong to', parseOwner)
}

function requestOf(backup: string, flags: RestoreFlags): RestoreRequest {
  return {
    backup,
    cluster: flags.cluster,
    repository: flags.repository,
    targetDirectory: resolve(flags.target),
    profile: flags.asProduction === true ? 'production' : 'clone',
    owner: flags.owner,
    allowDamaged: flags.allowDamaged === true,
  }
}

async function plan(context: CliContext, backup: string, flags: RestoreFlags): Promise<void> {
  const { record, table, sources, fetchBytes, diskNeedBytes, diskFreeBytes, request } = await planConfigured(
    requestOf(backup, flags),
    { ...context.deps, progress: () => {} },
  )
  const facts = {
    backupId: record.backupId,
    cluster: record.cluster,
    stoppedAt: record.stoppedAt,
    stopLsn: record.stopLsn,
    timeline: record.timeline,
    postgres: record.server.version,
    repository: sources[0]?.name ?? '',
    files: record.totals.files,
    bytes: record.totals.bytes,
    fetchBytes,
    walSegments: table.wal.length,
    diskNeedBytes,
    diskFreeBytes,
    targetDirectory: request.targetDirectory,
    profile: request.profile,
    minimumSettings: record.server.minimumSettings,
    preloadLibraries: record.server.preloadLibraries,
  }
  if (context.json) return printJson(facts)
  printFacts({
    backup: `${facts.backupId} of ${facts.cluster}, ${facts.postgres.split(' on ')[0]}`,
    'brings back': `the state at ${facts.stoppedAt} (LSN ${facts.stopLsn}), on a new timeline after ${facts.timeline}`,
    'reads from': `${facts.repository}: ${formatBytes(fetchBytes)} and ${facts.walSegments} WAL segments`,
    writes: `${facts.files} files, ${formatBytes(facts.bytes)}, into ${facts.targetDirectory}`,
    disk: `${formatBytes(diskNeedBytes)} needed, ${formatBytes(diskFreeBytes)} free`,
    profile:
      facts.profile === 'clone' ? 'clone: isolated from its source' : 'production: with the settings of its source',
    'preload libraries': facts.preloadLibraries.join(', ') || 'none',
  })
}

async function run(context: CliContext, backup: string, flags: RestoreFlags): Promise<void> {
  const request = requestOf(backup, flags)
  const result = await context.withProgress(async (report) => {
    if (flags.local === true) return restoreConfigured(request, { ...context.deps, progress: report })
    if (flags.allowDamaged === true || flags.owner !== undefined)
      throw new UsageError(
        '--allow-damaged and --owner go with --local',
        'run it with --local on the host of the target, or without them',
      )
    if (flags.cluster === undefined)
      throw new UsageError(
        'through the API, --cluster says whose backup it is',
        'add --cluster <name>, or do the work in this process with --local',
      )
    const api = new ApiClient(context.clientConfig.api, context.signal)
    const body = {
      cluster: flags.cluster,
      backupId: backup,
      targetDirectory: request.targetDirectory,
      profile: request.profile,
      ...(flags.repository === undefined ? {} : { repository: flags.repository }),
      ...(flags.host === undefined ? {} : { host: flags.host }),
    }
    const operation = await api.follow(await api.start('/v1/restores', body), report)
    return operation.kind === 'restore' ? operation.result : undefined
  })
  if (result === undefined) throw new Error('the operation ended without a result')
  if (context.json) return printJson(result)
  printRestore(result, request)
}

function printRestore(result: RestoreResult, request: RestoreRequest): void {
  printFacts({
    restored: `${result.backupId} into ${result.targetDirectory}`,
    files: result.files,
    size: formatBytes(result.bytes),
    took: formatDuration(result.durationMs),
    'start it with': result.startCommand,
    ...(request.profile === 'clone' ? { 'connect with': `psql -h ${result.targetDirectory} -U postgres` } : {}),
  })
}

function parseOwner(text: string): Owner {
  const [user = '', group] = text.split(':')
  return { uid: idOf('-u', user, user), gid: group === undefined ? idOf('-g', user, user) : groupId(group) }
}

function idOf(flag: '-u' | '-g', user: string, shown: string): number {
  try {
    return Number(execFileSync('id', [flag, '--', user], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }))
  } catch {
    throw new InvalidArgumentError(`${shown} is no user of this system`)
  }
}

function groupId(group: string): number {
  if (/^\d+$/.test(group)) return Number(group)
  try {
    return Number(
      execFileSync('getent', ['group', group], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).split(':')[2],
    )
  } catch {
    throw new InvalidArgumentError(`${group} is no group of this system`)
  }
}
