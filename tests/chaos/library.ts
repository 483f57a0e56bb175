/**
 * Two backups of one cluster, an older and a newer one, in a file repository and in S3, for the rounds that only read them.
 *
 * Made once per bench. Each was restored, started and compared with the source as it was; the restored files, as they were before the
 * server started, are what later restores are held against byte by byte.
 */
import { rm } from 'node:fs/promises'
import { adoptPostgres } from '@tidemark/testkit'
import { equalTo } from '../support/aftermath.ts'
import { Fleet, type RepositoryChoice, awsEnvironment, untilPromoted } from '../support/fleet.ts'
import { backupHere, initHere, objectsHere, restoreHere } from '../support/operate.ts'
import { fingerprint } from '../support/sample-cluster.ts'
import type { ChaosBench } from './bench.ts'
import { type Tree, treeOf } from './tree.ts'

export interface KeptBackup {
  readonly backupId: string
  /** Of the source as it was. */
  readonly contents: Readonly<Record<string, string>>
  /** Of a directory it was restored into. */
  readonly tree: Tree
}

export type Place = 'local' | 'offsite'

export class Library implements AsyncDisposable {
  readonly older: KeptBackup
  readonly newer: KeptBackup
  /** Key and credentials. */
  readonly env: Readonly<Record<string, string>>
  readonly choices: Readonly<Record<Place, RepositoryChoice>>
  /** What is below `clusters/`, with sizes. */
  readonly objects: Readonly<Record<Place, ReadonlyMap<string, number>>>
  readonly #fleet: Fleet

  private constructor(fleet: Fleet, parts: Pick<Library, 'older' | 'newer' | 'env' | 'choices' | 'objects'>) {
    this.#fleet = fleet
    this.older = parts.older
    this.newer = parts.newer
    this.env = parts.env
    this.choices = parts.choices
    this.objects = parts.objects
  }

  static async make(bench: ChaosBench): Promise<Library> {
    const { source } = bench
    await using stack = new AsyncDisposableStack()
    const offsite = bench.bucketAt('library')
    const fleet = stack.use(
      await Fleet.create({
        clusters: { main: source },
        repositories: { local: { folder: 'local' }, offsite },
        packBytes: '1MiB',
        env: awsEnvironment(bench.store),
      }),
    )
    await initHere(fleet.config)
    const takeBackup = async () => {
      const contents = await fingerprint(source)
      const { backupId } = await backupHere(fleet.config)
      return { contents, backupId }
    }
    const older = await takeBackup()
    // Other files, other lengths, other bytes in the same files.
    await source.query(`
      CREATE TABLE since AS SELECT g AS n, md5(g::text) AS t FROM generate_series(1, 5000) g;
      UPDATE noise SET bytes = gen_random_bytes(1024) WHERE id % 10 = 0;
      UPDATE articles SET title = title || ' again' WHERE id % 7 = 0`)
    const newer = await takeBackup()
    const library = new Library(fleet, {
      older: { ...older, tree: await referenceOf(fleet, older, 'local') },
      newer: { ...newer, tree: await referenceOf(fleet, newer, 'offsite') },
      env: { ...awsEnvironment(bench.store), BACKUP_ENCRYPTION_KEY: fleet.env['BACKUP_ENCRYPTION_KEY'] ?? '' },
      choices: { local: { url: `file://${fleet.folder.join('local')}`, shared: true }, offsite },
      objects: {
        local: await objectsHere(fleet.config, 'local', 'clusters/'),
        offsite: await objectsHere(fleet.config, 'offsite', 'clusters/'),
      },
    })
    stack.move()
    return library
  }

  get backups(): readonly KeptBackup[] {
    return [this.older, this.newer]
  }

  kept(backupId: string): KeptBackup {
    const found = this.backups.find((kept) => kept.backupId === backupId)
    if (found === undefined) throw new Error(`${backupId} is none of the library`)
    return found
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#fleet[Symbol.asyncDispose]()
  }
}

async function referenceOf(
  fleet: Fleet,
  { backupId, contents }: { readonly backupId: string; readonly contents: Record<string, string> },
  repository: Place,
): Promise<Tree> {
  const target = await fleet.newTarget(`reference-${backupId}`)
  await restoreHere(fleet.config, backupId, target, { repository })
  const tree = await treeOf(target)
  {
    await using copy = await adoptPostgres({ dataDirectory: target })
    await untilPromoted(copy)
    await equalTo(contents)(copy)
  }
  await rm(target, { recursive: true })
  return tree
}
