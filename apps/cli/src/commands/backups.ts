import { type Command, InvalidArgumentError } from 'commander'
import { formatBytes } from '@tidemark/kernel'
import { type SetBackup, listSet, openConfiguredSet, repositoryNames } from '@tidemark/operations'
import type { CliContext } from '../cli-context.ts'
import { printJson, printTable } from '../output.ts'
import type { Act } from '../program.ts'

interface ListFlags {
  readonly cluster?: string
  readonly repository?: string[]
  readonly limit: number
  readonly before?: string
}

const CURSOR = /^\d{8}T\d{9}Z-[0-9a-f]{16}$/

export function addBackupsCommands(program: Command, act: Act): void {
  const backups = program.command('backups').description('what can be restored')
  backups
    .command('list')
    .description('the backups of the repositories, newest first, and which repository holds each; needs no key')
    .option('--cluster <name>', 'only this cluster')
    .option('--repository <name...>', 'only these repositories')
    .option('--limit <n>', 'at most so many', limit, 100)
    .option('--before <cursor>', 'those that come after an earlier list, which printed the cursor', cursor)
    .action(act(list))
}

function limit(text: string): number {
  if (!/^[1-9]\d{0,5}$/.test(text)) throw new InvalidArgumentError('a whole number, 1 to 999999')
  return Number(text)
}

function cursor(text: string): string {
  if (!CURSOR.test(text)) throw new InvalidArgumentError('a cursor, as the list before it printed')
  return text
}

async function list(context: CliContext, { cluster, repository, limit, before }: ListFlags): Promise<void> {
  const { deps } = context
  await using opened = await openConfiguredSet(repositoryNames(deps.config, cluster, repository), 'read', deps)
  const { backups, next } = await listSet(opened, { cluster, limit, before }, deps)
  if (context.json) {
    return printJson({
      backups: backups.map(({ backup, ...where }) => ({
        ...('record' in backup
          ? backup.record
          : {
              backupId: backup.backupId,
              cluster: backup.cluster,
              systemId: backup.systemId,
              problem: backup.untrusted,
            }),
        ...where,
      })),
      next: next ?? null,
      unavailable: opened.unavailable,
    })
  }
  if (backups.length === 0) process.stdout.write('no backups\n')
  else
    printTable(
      ['BACKUP', 'CLUSTER', 'STOPPED (UTC)', 'PG', 'SIZE', 'STORED', 'VERDICT', 'REPOSITORIES'],
      backups.map(rowOf),
    )
  if (next !== undefined) process.stdout.write(`older ones: --before ${next}\n`)
  for (const { name, problem } of opened.unavailable)
    process.stderr.write(`${name}: not available (${problem.code}: ${problem.message})\n`)
}

function rowOf({ backup, repositories, untrusted, missing }: SetBackup): string[] {
  const places = [
    ...repositories,
    ...untrusted.map((name) => `${name} (UNTRUSTED)`),
    ...missing.map((name) => `${name} (MISSING)`),
  ].join(', ')
  if (!('record' in backup)) return [backup.backupId, backup.cluster, backup.stoppedAt, '', '', '', 'UNTRUSTED', places]
  const { record } = backup
  return [
    record.backupId,
    record.cluster,
    record.stoppedAt.slice(0, 19).replace('T', ' '),
    String(Math.floor(record.server.versionNum / 10_000)),
    formatBytes(record.totals.bytes),
    formatBytes(record.totals.storedBytes),
    record.verdict,
    places,
  ]
}
