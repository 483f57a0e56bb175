import { type Command, Option } from 'commander'
import type { VerifyResult } from '@tidemark/contracts'
import { formatBytes } from '@tidemark/kernel'
import { VerifyFailedError, openConfiguredSet, repositoryNames, verifyConfigured } from '@tidemark/operations'
import { findBackup } from '@tidemark/repository'
import { ApiClient } from '../api-client.ts'
import type { CliContext } from '../cli-context.ts'
import { printJson } from '../output.ts'
import type { Act } from '../program.ts'

interface VerifyFlags {
  readonly local?: true
  readonly cluster?: string
  readonly level: 'packs' | 'contents'
  readonly repository?: string
}

export function addVerifyCommand(program: Command, act: Act): void {
  program
    .command('verify')
    .argument('<backup>', 'id, beginning of an id, or latest')
    .description('compare what is stored with what was written; exit code 5 when it is damaged')
    .option('--local', 'do the work in this process, without API and Redis')
    .option('--cluster <name>', 'whose backup')
    .addOption(
      new Option('--level <level>', 'packs: SHA-256 of every object, no key; contents: every frame and file too')
        .choices(['packs', 'contents'])
        .default('packs'),
    )
    .option('--repository <name>', 'only there (default: everywhere)')
    .action(act(verify))
}

async function verify(context: CliContext, backup: string, flags: VerifyFlags): Promise<void> {
  const { cluster, level, repository } = flags
  const result = await context.withProgress(async (report) => {
    if (flags.local === true)
      return verifyConfigured({ backup, cluster, repository, level }, { ...context.deps, progress: report })
    const found = await resolve(context, backup, flags)
    const api = new ApiClient(context.clientConfig.api, context.signal)
    const path = `/v1/clusters/${encodeURIComponent(found.cluster)}/backups/${found.backupId}/verifications`
    const operation = await api.follow(
      await api.start(path, { level, ...(repository === undefined ? {} : { repository }) }),
      report,
    )
    return operation.kind === 'verify' ? operation.result : undefined
  })
  if (result === undefined) throw new Error('the operation ended without a result')
  if (context.json) printJson(result)
  else printVerdicts(result)
  if (result.repositories.some(({ ok }) => !ok)) throw new VerifyFailedError(result.backupId, result.repositories)
}

/** The API takes whole ids only; repositories tell which one is meant. */
async function resolve(
  context: CliContext,
  backup: string,
  flags: VerifyFlags,
): Promise<{ cluster: string; backupId: string }> {
  if (flags.cluster !== undefined && (backup === 'latest' || backup.length === 16))
    return { cluster: flags.cluster, backupId: backup }
  const { deps } = context
  await using opened = await openConfiguredSet(repositoryNames(deps.config, flags.cluster, undefined), 'read', deps)
  const { record } = await findBackup(opened.set, opened.set.repositories, backup, flags.cluster, context.signal)
  return record
}

function printVerdicts({ backupId, level, repositories }: VerifyResult): void {
  for (const { name, ok, packs, bytes, files, problems } of repositories) {
    const read = `${packs} packs, ${formatBytes(bytes)}${level === 'contents' ? `, ${files} files` : ''}`
    process.stdout.write(`${name}: backup ${backupId} is ${ok ? 'good' : 'DAMAGED'} (${level}: ${read})\n`)
    for (const problem of problems) process.stdout.write(`  ${problem}\n`)
  }
}
