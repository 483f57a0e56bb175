import { Command } from 'commander'
import { CliContext, type GlobalOptions } from './cli-context.ts'
import { addBackupCommands } from './commands/backup.ts'
import { addBackupsCommands } from './commands/backups.ts'
import { addKeyCommands } from './commands/key.ts'
import { addCopyCommand } from './commands/maintenance.ts'
import { addRepoCommands } from './commands/repo.ts'
import { addRestoreCommands } from './commands/restore.ts'
import { addSealCommands } from './commands/seal.ts'
import { addVerifyCommand } from './commands/verify.ts'

/** Makes a command's action out of a function that takes the context first. */
export type Act = <A extends unknown[]>(
  action: (context: CliContext, ...args: A) => Promise<void>,
) => (...args: A) => Promise<void>

export function buildProgram(signal: AbortSignal): Command {
  const program = new Command('tidemark')
    .description('Backup, verification and restore of PostgreSQL clusters')
    .version('0.1.0')
    .option('-c, --config <file>', 'configuration (default: TIDEMARK_CONFIG, else ./tidemark.yaml)')
    .option('--json', 'results and errors as JSON')
    .option(
      '--repository-url <url>',
      'break glass: this repository and no configuration file (s3://bucket/prefix or file:///path)',
    )
    .option('--endpoint <url>', 'with --repository-url: the S3 endpoint')
    .option('--region <name>', 'with --repository-url: the S3 region')
    .option('--ca-file <file>', 'with --repository-url: certificate authorities to trust')
    .option('--verbose', 'log to standard error')
    .showHelpAfterError('(see --help)')
    .exitOverride()
  const act: Act =
    (action) =>
    async (...args) => {
      await action(new CliContext(program.opts<GlobalOptions>(), signal), ...args)
    }
  addKeyCommands(program, act)
  addRepoCommands(program, act)
  addBackupCommands(program, act)
  addBackupsCommands(program, act)
  addCopyCommand(program, act)
  addVerifyCommand(program, act)
  addRestoreCommands(program, act)
  addSealCommands(program, act)
  return program
}
