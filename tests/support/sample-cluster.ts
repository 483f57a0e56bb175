/** A cluster with a bit of everything, and a fingerprint that two clusters share only when their contents are equal. */
import type { TestPostgres } from '@tidemark/testkit'

/**
 * Fills the `postgres` database: pgbench tables, compressible text, jsonb, incompressible bytes, an empty table, an index, a view,
 * a sequence, a large object, an unlogged table, an odd name.
 *
 * @param scale 1 makes about 35 MB, 30 about 1 GB.
 */
export async function fillSampleCluster(server: TestPostgres, scale: number): Promise<void> {
  await server.run('pgbench', ['--initialize', '--quiet', '--scale', String(Math.max(1, scale))])
  await server.query(`
    CREATE EXTENSION IF NOT EXISTS amcheck;
    CREATE EXTENSION IF NOT EXISTS pgcrypto;
    CREATE TABLE articles (id bigserial PRIMARY KEY, title text, body text);
    INSERT INTO articles (title, body)
      SELECT 'Article ' || g, repeat(md5(g::text) || ' the tide marks the sand where it has been. ', 8)
      FROM generate_series(1, ${5_000 * scale}) g;
    CREATE INDEX articles_title ON articles (title);
    CREATE TABLE events (id bigserial PRIMARY KEY, document jsonb);
    INSERT INTO events (document)
      SELECT jsonb_build_object('n', g, 'kind', (ARRAY['signup','login','order'])[1 + g % 3], 'tags', jsonb_build_array(g % 7, g % 11), 'note', md5(g::text))
      FROM generate_series(1, ${10_000 * scale}) g;
    CREATE INDEX events_document ON events USING gin (document jsonb_path_ops);
    CREATE TABLE noise (id bigserial PRIMARY KEY, bytes bytea);
    ALTER TABLE noise ALTER COLUMN bytes SET STORAGE EXTERNAL;
    INSERT INTO noise (bytes) SELECT gen_random_bytes(1024) FROM generate_series(1, ${8_000 * scale});
    CREATE TABLE "odd Näme" ("a ""quoted"" column" text);
    INSERT INTO "odd Näme" VALUES ('ümläut'), (NULL), ('');
    CREATE TABLE empty_one (id int);
    CREATE UNLOGGED TABLE scratch AS SELECT generate_series(1, 1000) AS n;
    CREATE VIEW kinds AS SELECT document ->> 'kind' AS kind, count(*) FROM events GROUP BY 1;
    SELECT lo_from_bytea(0, string_agg(gen_random_bytes(1024), ''::bytea)) FROM generate_series(1, 300);
  `)
}

const NOT_COMPARED = new Set(['scratch'])

/** Per table the row count and a digest of all rows regardless of order, and the same of sequences, large objects and the catalog's own view of itself. */
export async function fingerprint(server: TestPostgres): Promise<Record<string, string>> {
  const tables = await server.query<{ name: string; quoted: string }>(`
    SELECT c.relname AS name, format('%I.%I', n.nspname, c.relname) AS quoted
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 2`)
  const result: Record<string, string> = {}
  for (const { name, quoted } of tables) {
    if (NOT_COMPARED.has(name)) continue
    const [row] = await server.query<{ digest: string }>(
      `SELECT count(*) || ':' || coalesce(sum(('x' || substr(md5(t::text), 1, 15))::bit(60)::bigint::numeric), 0) AS digest FROM ${quoted} t`,
    )
    result[quoted] = row?.digest ?? ''
  }
  const [rest] = await server.query<{ sequences: string; objects: string; catalog: string }>(`
    SELECT (SELECT string_agg(schemaname || '.' || sequencename || '=' || coalesce(last_value::text, '-'), ',' ORDER BY 1) FROM pg_sequences) AS sequences,
           (SELECT string_agg(md5(lo_get(oid)), ',' ORDER BY oid) FROM pg_largeobject_metadata) AS objects,
           (SELECT md5(string_agg(pg_describe_object('pg_class'::regclass, oid, 0) || relkind::text || relnatts::text, ',' ORDER BY oid)) FROM pg_class WHERE oid >= 16384 AND relkind <> 't') AS catalog`)
  return {
    ...result,
    sequences: rest?.sequences ?? '',
    largeObjects: rest?.objects ?? '',
    catalog: rest?.catalog ?? '',
  }
}
