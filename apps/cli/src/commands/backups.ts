import type { Command } from 'commander'
import { formatBytes } from '@tidemark/kernel'
import { openConfiguredSet, repositoryNames } from '@tidemark/operations'
import { type ListedBackup, listBackups } from '@tidemark/repository'
import type { CliContext } from '../cli-context.ts'
import { printJson, printTable } from '../output.ts'
import type { Act } from '../program.ts'

interface ListFlags {
  readonly cluster?: string
  readonly repository?: string[]
}

export function addBackupsCommands(program: Command, act: Act): void {
  const backups = program.command('backups').description('what can be restored')
  backups
    .command('list')
    .description('every backup of the repositories, oldest first; needs no key')
    .option('--cluster <name>', 'only this cluster')
    .option('--repository <name...>', 'only these repositories')
    .action(act(list))
}

async function list(context: CliContext, { cluster, repository }: ListFlags): Promise<void> {
  const { deps } = context
  await using opened = await openConfiguredSet(repositoryNames(deps.config, cluster, repository), 'read', deps)
  const byId = new Map<string, { backup: ListedBackup; repositories: string[]; untrusted: string[] }>()
  for (const place of opened.set.repositories) {
    for (const backup of await listBackups(place, opened.set.publicKey, cluster, context.signal)) {
      const known = byId.get(backup.backupId) ?? { backup, repositories: [], untrusted: [] }
      if ('record' in backup) {
        known.repositories.push(place.name)
        known.backup = backup
      } else known.untrusted.push(place.name)
      byId.set(backup.backupId, known)
    }
  }
  const listed = [...byId.values()].toSorted((a, b) => (a.backup.stoppedAt < b.backup.stoppedAt ? -1 : 1))
  if (context.json) {
    return printJson({
      backups: listed.map(({ backup, repositories, untrusted }) => ({
        ...('record' in backup
          ? backup.record
          : {
              backupId: backup.backupId,
              cluster: backup.cluster,
              systemId: backup.systemId,
              problem: backup.untrusted,
            }),
        repositories,
        untrusted,
      })),
      unavailable: opened.unavailable,
    })
  }
  if (listed.length === 0) process.stdout.write('no backups\n')
  else
    printTable(
      ['BACKUP', 'CLUSTER', 'STOPPED (UTC)', 'PG', 'SIZE', 'STORED', 'VERDICT', 'REPOSITORIES'],
      listed.map(rowOf),
    )
  for (const { name, problem } of opened.unavailable)
    process.stderr.write(`${name}: not available (${problem.code}: ${problem.message})\n`)
}

function rowOf({
  backup,
  repositories,
  untrusted,
}: {
  backup: ListedBackup
  repositories: string[]
  untrusted: string[]
}): string[] {
  const places = [...repositories, ...untrusted.map((name) => `${name} (UNTRUSTED)`)].join(', ')
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
