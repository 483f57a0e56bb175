/** `copy` and `repo sweep`: work on repositories as such. Neither needs a key. */
import type { Command } from 'commander'
import { type CopyResult, type MaintenanceRequest, type MaintenanceResult, type SweepResult } from '@tidemark/contracts'
import { type ReportProgress, formatBytes } from '@tidemark/kernel'
import {
  VerifyFailedError,
  copyConfigured,
  openConfiguredSet,
  repositoryNames,
  sweepConfigured,
  verifyConfigured,
} from '@tidemark/operations'
import { findBackup } from '@tidemark/repository'
import { ApiClient } from '../api-client.ts'
import type { CliContext } from '../cli-context.ts'
import { printJson } from '../output.ts'
import type { Act } from '../program.ts'
import { UsageError } from '../usage-error.ts'

interface CopyFlags {
  readonly local?: true
  readonly from?: string
  readonly to: string
  readonly backup?: string
  readonly missing?: true
  readonly cluster?: string
  readonly verify: boolean
}

interface SweepFlags {
  readonly local?: true
  readonly cluster?: string
  readonly dryRun?: true
}

export function addCopyCommand(program: Command, act: Act): void {
  program
    .command('copy')
    .description('copy backups from one repository to another; needs no key, and goes on where an earlier one stopped')
    .requiredOption('--to <name>', 'the repository that is to hold them')
    .option('--from <name>', 'only from this one (default: any that has them)')
    .option('--backup <id>', 'id, beginning of an id, or latest')
    .option('--missing', 'every backup that the target lacks')
    .option('--cluster <name>', 'only of this cluster')
    .option('--no-verify', 'do not verify the copies afterwards')
    .option('--local', 'do the work in this process, without API and Redis')
    .action(act(copy))
}

export function addSweepCommand(repo: Command, act: Act): void {
  repo
    .command('sweep')
    .argument('[names...]', 'repositories of the configuration (default: all)')
    .description('remove what dead attempts left; touches nothing that is younger than a day, or that a backup uses')
    .option('--cluster <name>', 'only of this cluster')
    .option('--dry-run', 'say what would go, delete nothing')
    .option('--local', 'do the work in this process, without API and Redis')
    .action(act(sweep))
}

async function copy(context: CliContext, flags: CopyFlags): Promise<void> {
  const { backup = 'missing', cluster, from, to } = flags
  if ((flags.backup === undefined) === (flags.missing === undefined))
    throw new UsageError('either --backup <id> or --missing', '`tidemark copy --help` says what each means')
  if (flags.backup !== undefined && !/^(?:latest|[0-9a-f]{1,16})$/.test(flags.backup))
    throw new UsageError('--backup: an id, the beginning of one, or latest', 'tidemark backups list shows the ids')
  const result = await context.withProgress(async (report) => {
    if (flags.local === true) return copyHere(context, flags, backup, report)
    const backupId = backup === 'missing' ? backup : await wholeId(context, backup, flags)
    const task = { verb: 'copy' as const, to, backupId, ...(from === undefined ? {} : { from }) }
    return await ask(context, { task, ...(cluster === undefined ? {} : { cluster }) }, report)
  })
  if (result?.verb !== 'copy') throw new Error('the operation ended without a result')
  if (context.json) return printJson(result)
  for (const { backupId, outcome, objects, bytes } of result.backups)
    process.stdout.write(
      outcome === 'present'
        ? `${backupId}: was in ${to} already\n`
        : `${backupId}: copied to ${to} (${objects} objects, ${formatBytes(bytes)})\n`,
    )
  if (result.backups.length === 0) process.stdout.write(`${to} lacks no backup\n`)
  for (const name of result.unavailable)
    process.stdout.write(`${name}: not available; what only it holds was not copied\n`)
}

/** Copies and then reads each copy where it now lies. @throws {VerifyFailedError} */
async function copyHere(
  context: CliContext,
  { from, to, cluster, verify }: CopyFlags,
  backup: string,
  report: ReportProgress,
): Promise<CopyResult> {
  const deps = { ...context.deps, progress: report }
  const result = await copyConfigured({ from, to, backup, cluster }, deps)
  for (const copied of verify ? result.backups.filter(({ outcome }) => outcome === 'copied') : []) {
    const request = { backup: copied.backupId, cluster: copied.cluster, repository: to, level: 'packs' as const }
    const { repositories } = await verifyConfigured(request, deps)
    if (repositories.some(({ ok }) => !ok)) throw new VerifyFailedError(copied.backupId, repositories)
  }
  return result
}

/** The API takes whole ids only; repositories tell which one is meant. */
async function wholeId(context: CliContext, backup: string, { from, cluster }: CopyFlags): Promise<string> {
  if (/^[0-9a-f]{16}$/.test(backup)) return backup
  const { deps } = context
  const names = repositoryNames(deps.config, cluster, from === undefined ? undefined : [from])
  await using opened = await openConfiguredSet(names, 'read', deps)
  return (await findBackup(opened.set, opened.set.repositories, backup, cluster, context.signal)).record.backupId
}

async function sweep(context: CliContext, names: string[], flags: SweepFlags): Promise<void> {
  const { cluster, dryRun = false } = flags
  const repositories = names.length === 0 ? undefined : names
  const result = await context.withProgress(async (report) => {
    if (flags.local === true)
      return sweepConfigured({ repositories, cluster, dryRun }, { ...context.deps, progress: report })
    const task = { verb: 'sweep' as const, dryRun, ...(repositories === undefined ? {} : { repositories }) }
    return await ask(context, { task, ...(cluster === undefined ? {} : { cluster }) }, report)
  })
  if (result?.verb !== 'sweep') throw new Error('the operation ended without a result')
  if (context.json) printJson(result)
  else printSweep(result)
}

function printSweep({ dryRun, repositories, unavailable }: SweepResult): void {
  for (const { name, folders, objects, bytes, begins, kept } of repositories) {
    process.stdout.write(
      `${name}: ${objects} objects (${formatBytes(bytes)}) of ${folders.length} dead attempts and ${begins} old begin objects ${dryRun ? 'would go' : 'removed'}\n`,
    )
    for (const { backupId, objects, bytes } of folders)
      process.stdout.write(`  ${backupId}: ${objects} objects, ${formatBytes(bytes)}\n`)
    for (const { backupId, why } of kept) process.stdout.write(`  ${backupId}: kept, ${WHY[why]}\n`)
  }
  for (const name of unavailable) process.stdout.write(`${name}: not available\n`)
}

const WHY = {
  young: 'something in it is younger than a day',
  parent: 'a backup or a running attempt uses its packs',
  undecided: 'a record or begin object that may name it cannot be read',
}

async function ask(
  context: CliContext,
  request: MaintenanceRequest,
  report: ReportProgress,
): Promise<MaintenanceResult | undefined> {
  const api = new ApiClient(context.clientConfig.api, context.signal)
  const operation = await api.follow(await api.start('/v1/maintenance', request), report)
  return operation.kind === 'maintenance' ? operation.result : undefined
}
