import { randomBytes } from 'node:crypto'
import { type Command, InvalidArgumentError, Option } from 'commander'
import { type BackupOptions, type BackupResult, backupOptionsSchema, newOperationId } from '@tidemark/contracts'
import { formatBytes, formatDuration } from '@tidemark/kernel'
import { backupCluster } from '@tidemark/operations'
import { ApiClient } from '../api-client.ts'
import type { CliContext } from '../cli-context.ts'
import { EXIT } from '../exit-code.ts'
import { printFacts, printJson } from '../output.ts'
import type { Act } from '../program.ts'
import { UsageError } from '../usage-error.ts'

interface BackupFlags {
  readonly local?: true
  readonly checkpoint?: 'fast' | 'spread'
  readonly level?: number
  readonly maxRate?: number
  readonly label?: string
  readonly repository?: string[]
  readonly verify: boolean
}

export function addBackupCommands(program: Command, act: Act): void {
  const backup = program.command('backup').description('take a backup')
  backup
    .command('base')
    .argument('<cluster>')
    .description('a base backup of a cluster of the configuration')
    .option('--local', 'do the work in this process, without API and Redis')
    .addOption(
      new Option('--checkpoint <mode>', 'how the server starts it (default: the configured one)').choices([
        'fast',
        'spread',
      ]),
    )
    .option('--level <n>', 'zstd level, 1 to 19', wholeNumber)
    .option('--max-rate <KiB/s>', 'throttle, 32 to 1048576', wholeNumber)
    .option('--label <text>', 'a label for people')
    .option('--repository <name...>', 'only these repositories of the cluster')
    .option('--no-verify', 'do not verify it afterwards (through the API)')
    .action(act(takeBackup))
}

/** @throws {UsageError} with every option that is out of its limits. */
function optionsOf(flags: BackupFlags): BackupOptions {
  const parsed = backupOptionsSchema.safeParse({
    ...(flags.checkpoint === undefined ? {} : { checkpoint: flags.checkpoint }),
    verifyAfter: flags.verify,
    ...(flags.level === undefined ? {} : { compressionLevel: flags.level }),
    ...(flags.maxRate === undefined ? {} : { maxRateKiB: flags.maxRate }),
    ...(flags.label === undefined ? {} : { label: flags.label }),
    ...(flags.repository === undefined ? {} : { repositories: flags.repository }),
  })
  if (parsed.success) return parsed.data
  const problems = parsed.error.issues.map(({ path, message }) => `${OPTION_OF[String(path[0])] ?? ''}: ${message}`)
  throw new UsageError(problems.join('; '), '`tidemark backup base --help` says what each option takes')
}

const OPTION_OF: Readonly<Record<string, string>> = {
  compressionLevel: '--level',
  maxRateKiB: '--max-rate',
  label: '--label',
  repositories: '--repository',
}

async function takeBackup(context: CliContext, cluster: string, flags: BackupFlags): Promise<void> {
  const options = optionsOf(flags)
  const result = await context.withProgress(async (report) => {
    if (flags.local === true) {
      const operationId = newOperationId('backup', Date.now(), randomBytes(10))
      return backupCluster(
        { cluster, operationId, requestedAt: new Date(), options },
        { ...context.databaseDeps, progress: report },
      )
    }
    const api = new ApiClient(context.clientConfig.api, context.signal)
    const operation = await api.follow(
      await api.start(`/v1/clusters/${encodeURIComponent(cluster)}/backups`, options),
      report,
    )
    return operation.kind === 'backup' ? operation.result : undefined
  })
  if (result === undefined) throw new Error('the operation ended without a result')
  if (context.json) printJson(result)
  else printBackup(result)
  // Everything that could be saved was saved; a script must notice all the same.
  if (result.verdict === 'damaged') process.exitCode = EXIT.damaged
}

function printBackup(result: BackupResult): void {
  printFacts({
    backup: result.backupId,
    cluster: result.cluster,
    verdict:
      result.verdict === 'damaged'
        ? 'DAMAGED: the server reported page checksum failures; this is no restorable point'
        : result.verdict,
    'start, stop': `${result.startLsn}, ${result.stopLsn} on timeline ${result.timeline}`,
    files: result.files,
    size: formatBytes(result.bytes),
    stored: `${formatBytes(result.storedBytes)} in each repository`,
    took: formatDuration(result.durationMs),
    repositories: result.repositories
      .map(({ name, outcome }) => (outcome === 'stored' ? name : `${name} (DROPPED: a copy is owed)`))
      .join(', '),
    verification: result.verifyOperationId,
  })
}

function wholeNumber(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError('a whole number')
  return Number(text)
}
