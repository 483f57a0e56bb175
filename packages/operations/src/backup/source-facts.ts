import type { ConnectionTarget, ServerFacts } from '@tidemark/postgres'
import { NO_SOURCE_FACTS, type SourceFacts } from '@tidemark/repository'

/** What the sealed source document says of the server: everything a restore may need and a bucket's reader should not see. */
export function sourceFacts(facts: ServerFacts, target: ConnectionTarget): SourceFacts {
  return {
    ...NO_SOURCE_FACTS,
    role: target.user,
    dataDirectory: facts.paths.dataDirectory ?? null,
    tablespaces: facts.tablespaces.map(({ oid, name, location }) => ({
      oid: String(oid),
      name,
      location,
      seen: ['before'],
    })),
    databases: facts.databases.map((database) => ({
      oid: String(database.oid),
      name: database.name,
      encoding: database.encoding,
      collate: database.collate,
      ctype: database.ctype,
      provider: database.localeProvider,
      collationVersion: database.collationVersion ?? null,
      bytes: null,
    })),
  }
}
