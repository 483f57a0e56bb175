import { execFileSync } from 'node:child_process'
import { resolve } from 'node:path'
import { type Command, InvalidArgumentError, Option } from 'commander'
import type { RestoreResult } from '@tidemark/contracts'
import { formatBytes, formatDuration } from '@tidemark/kernel'
import {
  type Owner,
  type RestoreRequest,
  type TablespaceMapping,
  type TargetMode,
  planConfigured,
  restoreConfigured,
} from '@tidemark/operations'
import { ApiClient } from '../api-client.ts'
import type { CliContext } from '../cli-context.ts'
import { printFacts, printJson } from '../output.ts'
import type { Act } from '../program.ts'
import { planFacts, printPlan } from '../restore-plan.ts'
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
  readonly resume?: true
  readonly delta?: true
  readonly discardOnFailure?: true
  readonly tablespaceMapping?: readonly TablespaceMapping[]
  readonly tablespaceRoot?: string
  readonly configuration?: 'captured' | 'stand-in'
}

export function addRestoreCommands(program: Command, act: Act): void {
  const restore = program.command('restore').description('bring a backup back')
  withCommonOptions(
    restore.command('plan').description('whether it can succeed, and what it needs; changes nothing'),
  ).action(act(plan))
  withCommonOptions(
    restore.command('run').description('plan, then copy; into an empty directory unless told otherwise'),
  )
    .option('--discard-on-failure', 'take away what was written when it fails, instead of keeping it for --resume')
    .option('--local', 'do the work in this process, without API and Redis')
    .option('--host <name>', 'through the API: the host whose restore worker owns the target')
    .action(act(run))
}

function withCommonOptions(command: Command): Command {
  return command
    .argument('<backup>', 'id, beginning of an id, or latest')
    .requiredOption('--target <directory>', 'a new or empty directory, unless --resume or --delta')
    .option('--cluster <name>', 'whose backup')
    .option('--repository <name>', 'read from there (default: the first one that has all of it)')
    .option('--as-production', 'keep the settings of the source: it takes its place. Default is an isolated clone')
    .option('--allow-damaged', 'also a backup whose source had page checksum failures')
    .option('--owner <user[:group]>', 'as root: whom the files are to belong to', parseOwner)
    .addOption(new Option('--resume', 'go on with a restore of this backup that was broken off').conflicts('delta'))
    .option(
      '--delta',
      'into a directory that an earlier restore of the same database system finished: only what differs',
    )
    .option('--tablespace-mapping <OLD=NEW>', 'put the tablespace at OLD into NEW; may be repeated', collectMapping)
    .option('--tablespace-root <directory>', 'put each tablespace that is not mapped into <directory>/<oid>')
    .addOption(
      new Option(
        '--configuration <what>',
        'for files from outside of the data directory of the source: lay the captured ones beside (with --as-production), or write stand-ins',
      ).choices(['captured', 'stand-in']),
    )
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
    mode: modeOf(flags),
    discardOnFailure: flags.discardOnFailure === true,
    tablespaceMappings: flags.tablespaceMapping ?? [],
    ...(flags.tablespaceRoot === undefined ? {} : { tablespaceRoot: resolve(flags.tablespaceRoot) }),
    configuration: flags.configuration ?? 'stand-in',
  }
}

function modeOf({ resume, delta }: RestoreFlags): TargetMode {
  if (resume === true) return 'resume'
  return delta === true ? 'delta' : 'new'
}

/** As pg_basebackup takes it: a backslash in front of an equals sign makes it part of the path. */
function collectMapping(text: string, before: readonly TablespaceMapping[] = []): TablespaceMapping[] {
  const parts = /^((?:\\=|[^=])+)=((?:\\=|[^=])+)$/.exec(text)
  const [from = '', to = ''] = (parts?.slice(1) ?? []).map((part) => part.replaceAll('\\=', '='))
  if (!from.startsWith('/') || !to.startsWith('/'))
    throw new InvalidArgumentError('must be /old/directory=/new/directory, with \\= for an equals sign in a path')
  return [...before, { from, to }]
}

async function plan(context: CliContext, backup: string, flags: RestoreFlags): Promise<void> {
  const planned = await planConfigured(requestOf(backup, flags), { ...context.deps, progress: () => {} })
  if (context.json) return printJson(planFacts(planned))
  printPlan(planned)
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
      mode: request.mode ?? 'new',
      discardOnFailure: request.discardOnFailure ?? false,
      tablespaceMappings: [...(request.tablespaceMappings ?? [])],
      ...(request.tablespaceRoot === undefined ? {} : { tablespaceRoot: request.tablespaceRoot }),
      configuration: request.configuration ?? 'stand-in',
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
    ...(result.sameBytes === undefined || result.sameBytes === 0
      ? {}
      : { 'was there': `${formatBytes(result.sameBytes)} of it` }),
    ...(result.rereads === undefined || result.rereads === 0
      ? {}
      : {
          'read twice': `${result.rereads} objects: they came damaged at first; look at network, memory or the store`,
        }),
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
