import { Redacted } from '@tidemark/kernel'
import type { ConnectionTarget } from '@tidemark/postgres'
import type { TestPostgres } from '@tidemark/testkit'

export const noDeadline = new AbortController().signal

export function targetOf(server: TestPostgres, overrides: Partial<ConnectionTarget> = {}): ConnectionTarget {
  const { host, port, user, password } = server
  return { host, port, user, password: new Redacted(password), connectTimeoutMs: 5_000, ...overrides }
}

/** A table of about `mebibytes`, checkpointed. */
export async function fill(server: TestPostgres, table: string, mebibytes: number): Promise<void> {
  await server.query(
    `CREATE TABLE ${table} AS SELECT id, repeat(md5(id::text), 31) AS text FROM generate_series(1, ${mebibytes * 1000}) AS id`,
  )
  await server.query('CHECKPOINT')
}
