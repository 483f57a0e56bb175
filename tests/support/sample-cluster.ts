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

/** Unlogged, and what the matrix test's load writes while it runs. */
const NOT_COMPARED = new Set(['scratch', 'ledger'])

/**
 * Of one database: per table the row count and a digest of all rows regardless of order, the same of sequences and large objects, and of what the catalog says of
 * relations, columns, constraints, indexes, functions, extensions and rights.
 */
export async function fingerprint(server: TestPostgres, database?: string): Promise<Record<string, string>> {
  const tables = await server.query<{ name: string; quoted: string }>(
    `
    SELECT c.relname AS name, format('%I.%I', n.nspname, c.relname) AS quoted
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 2`,
    database,
  )
  const result: Record<string, string> = {}
  for (const { name, quoted } of tables) {
    if (NOT_COMPARED.has(name)) continue
    const [row] = await server.query<{ digest: string }>(
      `SELECT count(*) || ':' || coalesce(sum(('x' || substr(md5(t::text), 1, 15))::bit(60)::bigint::numeric), 0) AS digest FROM ${quoted} t`,
      database,
    )
    result[quoted] = row?.digest ?? ''
  }
  const [rest] = await server.query<{ sequences: string; objects: string; catalog: string }>(
    `SELECT (SELECT string_agg(schemaname || '.' || sequencename || '=' || coalesce(last_value::text, '-'), ',' ORDER BY 1) FROM pg_sequences) AS sequences,
           (SELECT string_agg(md5(lo_get(oid)), ',' ORDER BY oid) FROM pg_largeobject_metadata) AS objects,
           (SELECT md5(string_agg(line, E'\\n' ORDER BY line)) FROM (
              SELECT concat_ws(' ', 'class', c.oid, n.nspname, c.relname, c.relkind, c.relpersistence, c.relnatts, c.relacl, c.reltablespace) AS line
                FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid >= 16384
              UNION ALL SELECT concat_ws(' ', 'column', attrelid, attnum, attname, atttypid, atttypmod, attnotnull, attcollation) FROM pg_attribute WHERE attrelid >= 16384 AND attnum > 0
              UNION ALL SELECT concat_ws(' ', 'constraint', conrelid, conname, pg_get_constraintdef(oid)) FROM pg_constraint WHERE oid >= 16384
              UNION ALL SELECT concat_ws(' ', 'index', pg_get_indexdef(indexrelid), indisvalid) FROM pg_index WHERE indexrelid >= 16384
              UNION ALL SELECT concat_ws(' ', 'function', oid, proname, md5(prosrc), proacl) FROM pg_proc WHERE oid >= 16384
              UNION ALL SELECT concat_ws(' ', 'extension', extname, extversion) FROM pg_extension
              UNION ALL SELECT concat_ws(' ', 'role', rolname, rolsuper, rolreplication, rolcanlogin) FROM pg_roles
              UNION ALL SELECT concat_ws(' ', 'setting', setdatabase, setrole, setconfig) FROM pg_db_role_setting
              UNION ALL SELECT concat_ws(' ', 'tablespace', oid, spcname) FROM pg_tablespace
            ) lines) AS catalog`,
    database,
  )
  return {
    ...result,
    sequences: rest?.sequences ?? '',
    largeObjects: rest?.objects ?? '',
    catalog: rest?.catalog ?? '',
  }
}

/** Every database's fingerprint, and what the databases themselves are. */
export async function clusterFingerprint(server: TestPostgres): Promise<Record<string, Record<string, string>>> {
  const databases = await server.query<{ name: string; what: string }>(`
    SELECT datname AS name, concat_ws(' ', oid, pg_encoding_to_char(encoding), datcollate, datctype, datacl, dattablespace) AS what
    FROM pg_database WHERE datallowconn ORDER BY 1`)
  const result: Record<string, Record<string, string>> = {}
  for (const { name, what } of databases) result[name] = { ...(await fingerprint(server, name)), database: what }
  return result
}

/** Holds every B-tree of every database against its table (amcheck). @throws where one does not hold; @returns how many there are. */
export async function checkIndexes(server: TestPostgres): Promise<number> {
  let checked = 0
  for (const { name } of await server.query<{ name: string }>(
    'SELECT datname AS name FROM pg_database WHERE datallowconn',
  )) {
    await server.query('CREATE EXTENSION IF NOT EXISTS amcheck', name)
    const [row] = await server.query<{ indexes: number }>(
      `SELECT count(bt_index_check(c.oid, i.indisunique)::text)::int AS indexes FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
       WHERE c.relam = (SELECT oid FROM pg_am WHERE amname = 'btree') AND i.indisvalid AND c.relpersistence = 'p'`,
      name,
    )
    checked += row?.indexes ?? 0
  }
  return checked
}
