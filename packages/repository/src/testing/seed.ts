import { randomInt } from 'node:crypto'
import * as fc from 'fast-check'

/** The seed of this run, printed: env TIDEMARK_TEST_SEED repeats a failure. Every property of the file uses it. */
export function seedProperties(): number {
  const given = process.env['TIDEMARK_TEST_SEED']
  const seed = given === undefined || given === '' ? randomInt(2 ** 31) : Number(given)
  if (!Number.isSafeInteger(seed)) throw new Error(`TIDEMARK_TEST_SEED is to be a whole number, not '${given}'`)
  process.stderr.write(`TIDEMARK_TEST_SEED=${seed}\n`)
  fc.configureGlobal({ seed })
  return seed
}
