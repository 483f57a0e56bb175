import type { Command } from 'commander'
import { generateKeyText, parseKeyEncryptionKey } from '@tidemark/crypto'
import { printJson } from '../output.ts'
import type { Act } from '../program.ts'

export function addKeyCommands(program: Command, act: Act): void {
  const key = program.command('key').description('the key-encryption key')
  key
    .command('generate')
    .description('a new key for BACKUP_ENCRYPTION_KEY, on standard output; its id on standard error')
    .action(
      act(async (context) => {
        const text = generateKeyText()
        const { id } = parseKeyEncryptionKey(text, 'the new key')
        if (context.json) return printJson({ key: text, id })
        process.stdout.write(`${text}\n`)
        process.stderr.write(
          `key id ${id}. Keep the key where this machine's loss cannot reach it: without it no backup can be read.\n`,
        )
      }),
    )
}
