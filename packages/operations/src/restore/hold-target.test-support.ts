/** A process that takes the lock of the directories it is told on standard input, one a line, and says of each whether it got it. */
import { createInterface } from 'node:readline'
import { OperationalError } from '@tidemark/kernel'
import { TargetLock } from './target-lock.ts'
import { TargetRoot } from './target-root.ts'
import { stat } from 'node:fs/promises'

let give: () => Promise<void> = async () => {}
for await (const directory of createInterface({ input: process.stdin })) {
  await give()
  give = async () => {}
  if (directory !== '') process.stdout.write(`${await hold(directory)}\n`)
}

async function hold(directory: string): Promise<string> {
  let root: TargetRoot | undefined
  try {
    root = await TargetRoot.take(directory, undefined, {
      seen: await stat(directory, { bigint: true }),
      above: undefined,
    })
    const lock = await TargetLock.acquire(directory, directory)
    const held = root
    give = async () => {
      await lock.release()
      await held.release()
    }
    return 'held'
  } catch (error) {
    await root?.release()
    if (error instanceof OperationalError) return error.code
    throw error
  }
}
