import { randomBytes } from 'node:crypto'
import { pipeline } from 'node:stream/promises'
import { type Command, InvalidArgumentError, Option } from 'commander'
import { type SuiteName, sealPipe, unsealPipe } from '@tidemark/crypto'
import { openConfiguredSet, repositoryNames } from '@tidemark/operations'
import type { Act } from '../program.ts'
import { compressionLevelSchema } from '@tidemark/contracts'

function compressionLevel(text: string): number {
  const level = /^\d{1,2}$/.test(text) ? Number(text) : Number.NaN
  if (level !== 0 && !compressionLevelSchema.safeParse(level).success)
    throw new InvalidArgumentError('a zstd level, 0 to 19')
  return level
}

export function addSealCommands(program: Command, act: Act): void {
  program
    .command('seal')
    .description("seal standard input to standard output, under the set's keyring")
    .addOption(
      new Option('--suite <suite>', 'default: the configured one').choices(['aes-256-cbc-hmac-sha-256', 'aes-256-gcm']),
    )
    .option('--level <n>', 'zstd level, 0 for none', compressionLevel, 3)
    .action(
      act(async (context, { suite, level }: { suite?: SuiteName; level: number }) => {
        const { deps } = context
        await using opened = await openConfiguredSet(repositoryNames(deps.config, undefined, undefined), 'read', deps)
        const { keyring } = await opened.openKeys()
        const options = {
          suite: suite ?? deps.config.encryption.suite,
          dataKey: keyring.writeKey,
          identity: { kind: 'other', streamId: randomBytes(16).toString('hex') },
          compressionLevel: level,
        } as const
        await pipeline(
          process.stdin,
          (source) => sealPipe(source as AsyncIterable<Uint8Array>, options),
          process.stdout,
          { signal: context.signal, end: false },
        )
      }),
    )
  program
    .command('unseal')
    .description('unseal standard input to standard output; act on the output only when the exit code is 0')
    .action(
      act(async (context) => {
        const { deps } = context
        await using opened = await openConfiguredSet(repositoryNames(deps.config, undefined, undefined), 'read', deps)
        const { keyring } = await opened.openKeys()
        const plaintext = (source: unknown): AsyncIterable<Buffer> =>
          unsealPipe(source as AsyncIterable<Uint8Array>, keyring.dataKey, undefined, 'standard input')
        await pipeline(process.stdin, plaintext, process.stdout, { signal: context.signal, end: false })
      }),
    )
}
