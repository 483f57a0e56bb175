import type { TestPostgres } from '@tidemark/testkit'

/** The least that has a bit of everything and is worth several packs: about 12 MB over an empty cluster, half of it incompressible. */
export async function fillSmallCluster(server: TestPostgres): Promise<void> {
  await server.query(`
    CREATE EXTENSION IF NOT EXISTS pgcrypto;
    CREATE TABLE articles (id bigserial PRIMARY KEY, title text, body text);
    INSERT INTO articles (title, body)
      SELECT 'Article ' || g, repeat(md5(g::text) || ' the tide marks the sand where it has been. ', 8) FROM generate_series(1, 3000) g;
    CREATE INDEX articles_title ON articles (title);
    CREATE TABLE noise (id bigserial PRIMARY KEY, bytes bytea);
    ALTER TABLE noise ALTER COLUMN bytes SET STORAGE EXTERNAL;
    INSERT INTO noise (bytes) SELECT gen_random_bytes(1024) FROM generate_series(1, 6000);
    CREATE UNLOGGED TABLE scratch AS SELECT generate_series(1, 1000) AS n;
    SELECT lo_from_bytea(0, string_agg(gen_random_bytes(1024), ''::bytea)) FROM generate_series(1, 20);
    CHECKPOINT;
  `)
}
