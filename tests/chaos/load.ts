import { type Lsn, parseLsn } from '@tidemark/kernel'
import type { TestPostgres } from '@tidemark/testkit'

/** Writes rows 1, 2, 3 … into `ticks`, one a transaction, and knows by which LSN each had been committed. */
export class TickLoad implements AsyncDisposable {
  /** `committedBy[n - 1]` is the server's insert position just after row n was committed. */
  readonly committedBy: Lsn[] = []
  #over = false
  readonly #runs: Promise<void>

  private constructor(source: TestPostgres) {
    this.#runs = this.#run(source)
  }

  static async begin(source: TestPostgres): Promise<TickLoad> {
    await source.query('TRUNCATE ticks')
    return new TickLoad(source)
  }

  async end(): Promise<void> {
    this.#over = true
    await this.#runs
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end()
  }

  /** Ends by itself when the server goes: what was acknowledged until then must be in whatever covers it. */
  async #run(source: TestPostgres): Promise<void> {
    try {
      const client = await source.client()
      try {
        for (let n = 1; !this.#over; n += 1) {
          await client.query('INSERT INTO ticks VALUES ($1)', [n])
          const { rows } = await client.query<{ at: string }>('SELECT pg_current_wal_insert_lsn()::text AS at')
          this.committedBy.push(parseLsn(rows[0]?.at ?? ''))
        }
      } finally {
        await client.end()
      }
    } catch {
      // The round has taken the server away.
    }
  }
}

/**
 * What is wrong with the rows of a copy of the source as of `stopLsn`, or undefined: they are the first k, without a hole, and every row
 * that had been committed by the backup's end is among them.
 */
export async function wrongTicks(copy: TestPostgres, load: TickLoad, stopLsn: Lsn): Promise<object | undefined> {
  const [row] = await copy.query<{ count: number; last: number }>(
    'SELECT count(*)::int AS count, coalesce(max(n), 0) AS last FROM ticks',
  )
  const { count = -1, last = 0 } = row ?? {}
  const owed = load.committedBy.filter((lsn) => lsn <= stopLsn).length
  // One more may have been committed whose answer never came.
  const holds = count === last && count >= owed && count <= load.committedBy.length + 1
  return holds ? undefined : { count, last, owed, acknowledged: load.committedBy.length }
}
