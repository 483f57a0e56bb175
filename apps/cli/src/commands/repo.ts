import type { Command } from 'commander'
import { OperationalError, systemClock } from '@tidemark/kernel'
import {
  keysOf,
  openConfiguredSet,
  openConfiguredStore,
  repositoryNames,
  requireName,
  statusOfSet,
} from '@tidemark/operations'
import { type RepositoryPlace, initRepositorySet, listRecordNames, openRepositorySet } from '@tidemark/repository'
import type { CliContext } from '../cli-context.ts'
import { printFacts, printJson, printTable } from '../output.ts'
import type { Act } from '../program.ts'
import { addSweepCommand } from './maintenance.ts'

export function addRepoCommands(program: Command, act: Act): void {
  const repo = program.command('repo').description('repositories')
  repo
    .command('init')
    .argument('[names...]', 'repositories of the configuration (default: all)')
    .description('make a repository set, or add empty repositories to the one that the others belong to')
    .action(
      act(async (context, names: string[]) => {
        const { deps } = context
        const { config, signal, logger } = deps
        await using stores = new AsyncDisposableStack()
        const places: RepositoryPlace[] = []
        // All configured ones are opened, so that an empty one joins the set of the others.
        for (const name of repositoryNames(config, undefined, undefined)) {
          const wanted = names.length === 0 || names.includes(name)
          const place = await openPlace(context, name, wanted)
          if (place === undefined) continue
          stores.use(place.store)
          places.push(place)
        }
        for (const name of names) requireName(config, 'repository', name)
        const { set, created } = await initRepositorySet(places, keysOf(config), config.encryption.publicKey, {
          clock: systemClock,
          logger,
          signal,
        })
        if (context.json) return printJson({ setId: set.setId, publicKey: set.publicKey, created })
        for (const { name, capabilities } of created) {
          const store = places.find((place) => place.name === name)?.store.url ?? ''
          process.stdout.write(`made ${name} at ${store}\n`)
          if (!capabilities.conditionalPut)
            process.stdout.write('  this store does not enforce conditional puts; unique names decide instead\n')
          if (!capabilities.checksumAtIngest)
            process.stdout.write('  this store does not check checksums at ingest; verify after every backup\n')
        }
        printFacts({ 'set id': set.setId, 'public key': set.publicKey })
        process.stdout.write('Pin the public key under encryption.publicKey in tidemark.yaml.\n')
      }),
    )
  repo
    .command('status')
    .description('how many backups each repository holds, and how many of the set it lacks')
    .option('--cluster <name>', 'only this cluster')
    .action(act(status))
  addSweepCommand(repo, act)
  repo
    .command('info')
    .argument('[names...]', 'repositories of the configuration (default: all)')
    .description('what the repositories are, what they hold, whether the key opens them')
    .action(
      act(async (context, names: string[]) => {
        const { deps } = context
        await using opened = await openConfiguredSet(
          repositoryNames(deps.config, undefined, names.length === 0 ? undefined : names),
          'read',
          deps,
        )
        const { set } = opened
        const key =
          deps.config.encryption.key === undefined
            ? 'none configured'
            : await opened
                .openKeys()
                .then(({ keyring }) => `opens the keyring (${keyring.dataKeys().length} data keys)`)
        const repositories = []
        for (const { name, required, store, marker } of set.repositories) {
          const backups: Record<string, number> = {}
          const repository = { name, required, store, marker }
          for await (const { cluster } of listRecordNames(repository, undefined, context.signal))
            backups[cluster] = (backups[cluster] ?? 0) + 1
          repositories.push({
            name,
            url: store.url,
            required,
            repositoryId: marker.repositoryId,
            createdAt: marker.createdAt,
            formatVersion: marker.version,
            backups,
          })
        }
        if (context.json)
          return printJson({
            setId: set.setId,
            publicKey: set.publicKey,
            key,
            repositories,
            unavailable: opened.unavailable,
          })
        printFacts({ 'set id': set.setId, 'public key': set.publicKey, key })
        for (const repository of repositories) {
          process.stdout.write(`\n${repository.name}\n`)
          const held = Object.entries(repository.backups).map(([cluster, count]) => `${cluster}: ${count}`)
          printFacts({
            '  url': repository.url,
            '  required': repository.required ? 'yes' : 'no',
            '  repository id': repository.repositoryId,
            '  made': repository.createdAt,
            '  format version': repository.formatVersion,
            '  backups': held.length === 0 ? 'none' : held.join(', '),
          })
        }
        for (const { name, problem } of opened.unavailable)
          process.stdout.write(`\n${name}: not available (${problem.code}: ${problem.message})\n`)
      }),
    )
}

/** Which repository holds how much of the set, and what it is owed. Costs listing pages only. */
async function status(context: CliContext, { cluster }: { readonly cluster?: string }): Promise<void> {
  const { deps } = context
  await using opened = await openConfiguredSet(repositoryNames(deps.config, cluster, undefined), 'read', deps)
  const { repositories, backups } = await statusOfSet(opened, cluster, deps)
  if (context.json) return printJson({ repositories, backups, unavailable: opened.unavailable })
  printTable(
    ['REPOSITORY', 'REQUIRED', 'BACKUPS', 'OWED', 'NEWEST (UTC)'],
    [
      ...repositories.map(({ name, required, held, owed, newest }) => [
        name,
        required ? 'yes' : 'no',
        String(held),
        String(owed),
        newest ?? 'none',
      ]),
      ...opened.unavailable.map(({ name, problem }) => [name, '', '', '', `not available (${problem.code})`]),
    ],
  )
  for (const { name, owed } of repositories)
    if (owed > 0)
      process.stdout.write(`${name} lacks ${owed} of ${backups} backups: tidemark copy --to ${name} --missing\n`)
}

/**
 * A configured place. One that was not asked for takes part only where it belongs to a set already, so that a new one can join it.
 *
 * @throws for a place that was asked for, whatever keeps it from being opened.
 */
async function openPlace(context: CliContext, name: string, wanted: boolean): Promise<RepositoryPlace | undefined> {
  const { deps } = context
  const repository = deps.config.repositories[name]
  if (repository === undefined) return undefined
  const { required } = repository
  if (wanted) return { name, required, store: await openConfiguredStore(repository, deps, true) }
  try {
    await using opened = new AsyncDisposableStack()
    const place = { name, required, store: opened.use(await openConfiguredStore(repository, deps, false)) }
    await openRepositorySet([place], undefined, deps.signal)
    opened.move()
    return place
  } catch (error) {
    if (deps.signal.aborted || !(error instanceof OperationalError)) throw error
    return undefined
  }
}
