/**
 * From names in tidemark.yaml to open repositories.
 *
 * A required repository that does not answer is an error for whoever writes; readers go on with those that answer, and
 * learn which did not. What belongs to another host's disk is never opened as if it were ours.
 */
import { hostname } from 'node:os'
import type { Config, RepositoryConfig } from '@tidemark/config'
import { KeyEncryptionKey } from '@tidemark/crypto'
import { type Clock, type Logger, OperationalError, type Problem, problemOf } from '@tidemark/kernel'
import {
  LatestUncertainError,
  type OpenedKeys,
  type RepositoryPlace,
  type RepositorySet,
  openKeys,
  openRepositorySet,
} from '@tidemark/repository'
import { type ObjectStore, openObjectStore } from '@tidemark/storage'
import { RepositoryElsewhereError, UnknownNameError } from '../errors.ts'
import type { Patience } from '../patience.ts'

export interface ConfiguredDeps {
  readonly config: Config
  readonly clock: Clock
  readonly logger: Logger
  readonly signal: AbortSignal
  /** What this host calls itself; a file repository of another host is not opened. Default: the system's host name. */
  readonly host?: string
  readonly patience?: Patience
}

export interface UnavailableRepository {
  readonly name: string
  readonly problem: Problem
}

export interface ConfiguredSet extends AsyncDisposable {
  readonly set: RepositorySet
  /** Not required, and not there. */
  readonly unavailable: readonly UnavailableRepository[]
  /** @throws {KeyMissingError} @throws {WrongKeyError} */
  openKeys(): Promise<OpenedKeys>
}

/** The names given, else the cluster's own where it is configured, else all. @throws {UnknownNameError} */
export function repositoryNames(
  config: Config,
  cluster: string | undefined,
  names: readonly string[] | undefined,
): readonly string[] {
  const ofCluster = cluster === undefined ? undefined : config.clusters[cluster]?.repositories
  const wanted = names ?? ofCluster ?? Object.keys(config.repositories)
  for (const name of wanted) requireName(config, 'repository', name)
  if (wanted.length === 0) throw new UnknownNameError('repository', '(none configured)', [])
  return wanted
}

/** @throws {UnknownNameError} */
export function requireName(config: Config, kind: 'cluster' | 'repository', name: string): void {
  const known = kind === 'cluster' ? config.clusters : config.repositories
  if (known[name] === undefined) throw new UnknownNameError(kind, name, Object.keys(known))
}

/**
 * @param use 'write': every required repository must open. 'read': one is enough.
 * @throws {UnknownNameError} @throws {SetMismatchError}; in the end what the (first) repository threw.
 */
export async function openConfiguredSet(
  names: readonly string[],
  use: 'read' | 'write',
  deps: ConfiguredDeps,
): Promise<ConfiguredSet> {
  const { config, logger, signal } = deps
  await using opened = new AsyncDisposableStack()
  const places: RepositoryPlace[] = []
  const unavailable: UnavailableRepository[] = []
  let first: OperationalError | undefined
  for (const name of names) {
    const repository = config.repositories[name]
    if (repository === undefined) throw new UnknownNameError('repository', name, Object.keys(config.repositories))
    try {
      const place = {
        name,
        required: repository.required,
        store: opened.use(await openConfiguredStore(repository, deps, false)),
      }
      await openRepositorySet([place], config.encryption.publicKey, signal)
      // What a store enforces is asked anew before anything is written.
      places.push(use === 'write' ? { ...place, capabilities: await place.store.probe(signal) } : place)
    } catch (error) {
      if (signal.aborted || !(error instanceof OperationalError)) throw error
      if (use === 'write' && repository.required) throw error
      first ??= error
      unavailable.push({ name, problem: problemOf(error) })
      logger.warn({ repository: name, code: error.code, reason: error.message }, 'repository not available')
    }
  }
  if (places.length === 0) throw first ?? new UnknownNameError('repository', '(none)', Object.keys(config.repositories))
  const set = await openRepositorySet(places, config.encryption.publicKey, signal)
  const stores = opened.move()
  return {
    set,
    unavailable,
    openKeys: async () => {
      const keys = await openKeys(set, keysOf(config), signal)
      const { passedOver } = keys
      if (passedOver.length > 0)
        logger.warn({ objects: passedOver }, 'objects under keys/ are no keyrings of this set, or were changed')
      return keys
    },
    [Symbol.asyncDispose]: () => stores.disposeAsync(),
  }
}

/** @throws {LatestUncertainError} `latest` is asked of all repositories, and not all of them answered. */
export function requireAllForLatest(backup: string, repository: string | undefined, opened: ConfiguredSet): void {
  if (backup === 'latest' && repository === undefined && opened.unavailable.length > 0)
    throw LatestUncertainError.unanswered(opened.unavailable)
}

/** The KEKs of the configuration, the current one first; none where none is set. */
export function keysOf(config: Config): KeyEncryptionKey[] {
  const { key, oldKeys } = config.encryption
  return [...(key === undefined ? [] : [key]), ...oldKeys].map((redacted) => new KeyEncryptionKey(redacted.reveal()))
}

/** @param create only `repo init` makes the folder of a file repository. @throws {RepositoryElsewhereError} */
export async function openConfiguredStore(
  repository: RepositoryConfig,
  deps: ConfiguredDeps,
  create: boolean,
): Promise<ObjectStore> {
  const { clock, logger } = deps
  if (repository.kind === 'file') {
    const here = deps.host ?? hostname()
    if (repository.host !== undefined && repository.host !== here)
      throw new RepositoryElsewhereError(repository.name, repository.host, here)
    return openObjectStore(repository.url, { clock, logger, create })
  }
  const { endpoint, region, accessKeyId, secretAccessKey, caFile, forcePathStyle } = repository
  const credentials =
    accessKeyId === undefined || secretAccessKey === undefined
      ? {}
      : { credentials: { accessKeyId: accessKeyId.reveal(), secretAccessKey } }
  return openObjectStore(repository.url, {
    clock,
    logger,
    s3: {
      ...deps.patience?.store,
      ...credentials,
      ...(endpoint === undefined ? {} : { endpoint }),
      ...(region === undefined ? {} : { region }),
      ...(caFile === undefined ? {} : { caFile }),
      // With an endpoint the driver's own default is path style; only an explicit wish overrides it.
      ...(forcePathStyle === undefined ? {} : { forcePathStyle }),
    },
  })
}
