/**
 * Reads tidemark.yaml and the environment: the only place that touches process.env.
 *
 * All problems are collected and thrown at once, each with its place. No message repeats a value,
 * since a value in the wrong place may be a secret.
 */
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { LineCounter, isNode, parseDocument } from 'yaml'
import type { Document } from 'yaml'
import type { z } from 'zod'
import type { ClusterConfig, Config, HookConfig, RepositoryConfig } from './config.ts'
import { ACCEPTED_KEY_FORMS, Redacted, parseKeyText } from '@tidemark/kernel'
import { ConfigInvalidError } from './errors.ts'
import type { ConfigProblem } from './errors.ts'
import { fileSchema, logLevelField } from './schema.ts'
import type { ConfigFile } from './schema.ts'
import { SecretLookup } from './secrets.ts'
import type { Environment } from './secrets.ts'

export interface LoadConfigOptions {
  /** Default: TIDEMARK_CONFIG, else ./tidemark.yaml. */
  readonly path?: string
  /** The configuration itself, in place of a file: what a command line says in full. */
  readonly text?: string
  /** Default: this process's environment. */
  readonly env?: Environment
  /**
   * Which secrets must be found: of databases and repositories ('required', the default), of repositories alone ('stores': a restore
   * host needs no database password), or neither ('optional': the API opens none, and should not be given them).
   */
  readonly secrets?: 'required' | 'stores' | 'optional'
}

/** @throws {ConfigInvalidError} with every problem found. */
export function loadConfig(options: LoadConfigOptions = {}): Config {
  const env = options.env ?? process.env
  const path = options.path ?? nonEmpty(env['TIDEMARK_CONFIG']) ?? 'tidemark.yaml'
  const { file, problems } = options.text === undefined ? readConfigFile(path) : parseConfigText(path, options.text)
  const overrides = readOverrides(env, problems)
  const key = readKeys(env, 'BACKUP_ENCRYPTION_KEY', problems)
  const oldKeys = readKeys(env, 'BACKUP_ENCRYPTION_KEY_OLD', problems)
  const secrets = new SecretLookup(env)
  if (file === undefined) throw new ConfigInvalidError(path, problems)

  const ofStores = options.secrets === 'optional' ? 'ignore' : 'problem'
  const ofDatabases = (options.secrets ?? 'required') === 'required' ? 'problem' : 'ignore'
  const repositories = Object.entries(file.repositories).map(([name, value]) =>
    repositoryConfig(name, value, secrets, ofStores),
  )
  const clusters = Object.entries(file.clusters).map(([name, value]) =>
    clusterConfig(name, value, file, secrets, ofDatabases, problems),
  )
  const redis = redisConfig(file.redis, overrides.redisUrl, secrets, problems)

  problems.push(...secrets.problems)
  if (problems.length > 0) throw new ConfigInvalidError(path, problems)

  const { suite, publicKey } = file.encryption
  return deepFreeze<Config>({
    path,
    clusters: byName(clusters),
    repositories: byName(repositories),
    encryption: {
      suite,
      ...(publicKey === undefined ? {} : { publicKey }),
      ...(key[0] === undefined ? {} : { key: key[0] }),
      oldKeys,
    },
    backup: file.backup,
    redis,
    api: { ...file.api, port: overrides.apiPort ?? file.api.port },
    workers: file.workers,
    logLevel: overrides.logLevel ?? file.logLevel,
    warnings: secrets.warnings,
  })
}

function readConfigFile(path: string): { file: ConfigFile | undefined; problems: ConfigProblem[] } {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? 'unknown error'
    return { file: undefined, problems: [{ place: path, problem: `cannot be read (${code})` }] }
  }
  return parseConfigText(path, text)
}

function parseConfigText(path: string, text: string): { file: ConfigFile | undefined; problems: ConfigProblem[] } {
  const lines = new LineCounter()
  // Pretty errors quote the source line, which may hold a secret: report code and line only.
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: true })
  if (document.errors.length > 0) {
    const problems = document.errors.map((error) => {
      const line = lines.linePos(error.pos[0]).line
      return { place: path, line, problem: `not valid YAML (${error.code.toLowerCase().replaceAll('_', ' ')})` }
    })
    return { file: undefined, problems }
  }
  const parsed = fileSchema.safeParse(document.toJS() ?? {})
  if (parsed.success) return { file: parsed.data, problems: [] }
  return { file: undefined, problems: parsed.error.issues.map((issue) => problemOfIssue(issue, document, lines)) }
}

function problemOfIssue(issue: z.core.$ZodIssue, document: Document, lines: LineCounter): ConfigProblem {
  const place = issue.path.reduce<string>((text, part) => {
    return typeof part === 'number' ? `${text}[${part}]` : text === '' ? String(part) : `${text}.${String(part)}`
  }, '')
  const line = lineOf(issue, document, lines)
  const problem =
    issue.code === 'invalid_key' ? (issue.issues[0]?.message ?? issue.message) : `${expected(issue)}${issue.message}`
  return { place: place === '' ? 'the file' : place, ...(line === undefined ? {} : { line }), problem }
}

/** Custom messages name the accepted form alone; zod's own already begin with a verdict. */
function expected(issue: z.core.$ZodIssue): string {
  const speaksForItself =
    issue.code === 'unrecognized_keys' || /^(?:Invalid|Too|Unrecognized|a secret may not)/.test(issue.message)
  return speaksForItself ? '' : 'must be '
}

function lineOf(issue: z.core.$ZodIssue, document: Document, lines: LineCounter): number | undefined {
  const path = issue.code === 'unrecognized_keys' ? [...issue.path, issue.keys[0]] : issue.path
  for (let length = path.length; length > 0; length -= 1) {
    const node = document.getIn(path.slice(0, length), true)
    if (isNode(node) && node.range) return lines.linePos(node.range[0]).line
  }
  return undefined
}

function readOverrides(
  env: Environment,
  problems: ConfigProblem[],
): { redisUrl?: string; logLevel?: Config['logLevel']; apiPort?: number } {
  const overrides: { redisUrl?: string; logLevel?: Config['logLevel']; apiPort?: number } = {}
  const redisUrl = nonEmpty(env['TIDEMARK_REDIS_URL'])
  if (redisUrl !== undefined) overrides.redisUrl = redisUrl
  const logLevel = nonEmpty(env['TIDEMARK_LOG_LEVEL'])
  if (logLevel !== undefined) {
    const parsed = logLevelField.safeParse(logLevel)
    if (parsed.success) overrides.logLevel = parsed.data
    else problems.push({ place: 'env TIDEMARK_LOG_LEVEL', problem: `must be ${parsed.error.issues[0]?.message}` })
  }
  const apiPort = nonEmpty(env['TIDEMARK_API_PORT'])
  if (apiPort !== undefined) {
    if (/^\d{1,5}$/.test(apiPort) && Number(apiPort) <= 65_535) overrides.apiPort = Number(apiPort)
    else problems.push({ place: 'env TIDEMARK_API_PORT', problem: 'must be a port, 0 to 65535' })
  }
  return overrides
}

function readKeys(env: Environment, name: string, problems: ConfigProblem[]): Redacted<Buffer>[] {
  const text = nonEmpty(env[name])
  if (text === undefined) return []
  const several = name.endsWith('_OLD')
  const parts = several ? text.split(',').filter((part) => part.trim() !== '') : [text]
  return parts.flatMap((part, index) => {
    const key = parseKeyText(part)
    if (key) return [new Redacted(key)]
    problems.push({
      place: `env ${name}`,
      problem: `${several ? `key ${index + 1} ` : ''}must be ${ACCEPTED_KEY_FORMS}; its value is not shown`,
    })
    return []
  })
}

function clusterConfig(
  name: string,
  value: ConfigFile['clusters'][string],
  file: ConfigFile,
  secrets: SecretLookup,
  missing: 'problem' | 'ignore',
  problems: ConfigProblem[],
): ClusterConfig {
  const place = `clusters.${name}`
  const known = Object.keys(file.repositories)
  const repositories = value.repositories ?? known
  if (repositories.length === 0)
    problems.push({ place: `${place}.repositories`, problem: 'no repository is configured' })
  repositories.forEach((repository, index) => {
    if (!known.includes(repository)) {
      problems.push({
        place: `${place}.repositories[${index}]`,
        problem: `must be one of the configured repositories: ${known.join(', ')}`,
      })
    }
  })
  if (new Set(repositories).size !== repositories.length) {
    problems.push({ place: `${place}.repositories`, problem: 'names a repository twice' })
  }
  const hosts = new Set(repositories.flatMap((repository) => file.repositories[repository]?.host ?? []))
  if (hosts.size > 1) {
    problems.push({
      place: `${place}.repositories`,
      problem: `needs file repositories of one host only (found ${[...hosts].join(', ')}): one worker writes them all`,
    })
  }
  const password = secrets.find(`${place}.password`, value.password, missing)
  return {
    name,
    nodes: value.nodes as unknown as ClusterConfig['nodes'],
    user: value.user,
    ...(password === undefined ? {} : { password }),
    database: value.database,
    ssl: value.ssl,
    ...(value.caFile === undefined ? {} : { caFile: value.caFile }),
    backup: clusterBackup(value.backup, file.backup),
    hooks: {
      ...(value.hooks.before === undefined ? {} : { before: hookConfig(value.hooks.before) }),
      ...(value.hooks.after === undefined ? {} : { after: hookConfig(value.hooks.after) }),
    },
    repositories: repositories as [string, ...string[]],
  }
}

function clusterBackup(
  own: ConfigFile['clusters'][string]['backup'],
  general: ConfigFile['backup'],
): ClusterConfig['backup'] {
  const maxRateKiB = own.maxRateKiB ?? general.maxRateKiB
  return {
    checkpoint: own.checkpoint ?? general.checkpoint,
    compressionLevel: own.compressionLevel ?? general.compressionLevel,
    ...(maxRateKiB === undefined ? {} : { maxRateKiB }),
  }
}

function hookConfig({
  command,
  args,
  timeoutSeconds,
}: NonNullable<ConfigFile['clusters'][string]['hooks']['before']>): HookConfig {
  return { command, args, timeoutMs: timeoutSeconds * 1000 }
}

function repositoryConfig(
  name: string,
  value: ConfigFile['repositories'][string],
  secrets: SecretLookup,
  missing: 'problem' | 'ignore',
): RepositoryConfig {
  const { url, required } = value
  if (url.startsWith('file:')) {
    const directory = fileURLToPath(url).replace(/(?<=.)\/+$/, '')
    const where = value.host === undefined ? { shared: true } : { host: value.host, shared: false }
    return { kind: 'file', name, url, directory, ...where, required }
  }
  const [, bucket = '', prefix = ''] = /^s3:\/\/([^/]+)\/?(.*)$/.exec(url) ?? []
  const accessKeyId = secrets.find(`repositories.${name}.accessKeyId`, value.accessKeyId, missing)
  const secretAccessKey = secrets.find(`repositories.${name}.secretAccessKey`, value.secretAccessKey, missing)
  return {
    kind: 's3',
    name,
    url,
    bucket,
    prefix: prefix.replace(/^\/+|\/+$/g, ''),
    ...(value.endpoint === undefined ? {} : { endpoint: value.endpoint }),
    ...(value.region === undefined ? {} : { region: value.region }),
    ...(accessKeyId === undefined ? {} : { accessKeyId }),
    ...(secretAccessKey === undefined ? {} : { secretAccessKey }),
    ...(value.forcePathStyle === undefined ? {} : { forcePathStyle: value.forcePathStyle }),
    ...(value.caFile === undefined ? {} : { caFile: value.caFile }),
    required,
  }
}

function redisConfig(
  value: ConfigFile['redis'],
  override: string | undefined,
  secrets: SecretLookup,
  problems: ConfigProblem[],
): Config['redis'] {
  const place = override === undefined ? 'redis.url' : 'env TIDEMARK_REDIS_URL'
  const text = override ?? value.url
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (!url || !/^rediss?:$/.test(url.protocol) || url.hostname === '') {
    problems.push({ place, problem: 'must be an address like redis://127.0.0.1:6379/0 or rediss://… for TLS' })
    return { url: value.url, prefix: value.prefix }
  }
  if (url.password !== '' && override === undefined) {
    problems.push({
      place,
      problem: 'a secret may not stand in this file: take the password out and write redis.password: { env: NAME }',
    })
  }
  // Redis is needed by every process that loads this section for use, so its secret is never optional.
  const password =
    url.password === ''
      ? secrets.find('redis.password', value.password, 'problem')
      : new Redacted(decodeURIComponent(url.password))
  const username = url.username === '' ? undefined : decodeURIComponent(url.username)
  url.username = ''
  url.password = ''
  return {
    url: url.href,
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password }),
    prefix: value.prefix,
  }
}

function byName<T extends { readonly name: string }>(values: readonly T[]): Record<string, T> {
  // Without a prototype, so that a cluster called "constructor" is not found by accident.
  const record: Record<string, T> = Object.create(null) as Record<string, T>
  for (const value of values) record[value.name] = value
  return record
}

function deepFreeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null || value instanceof Redacted || Object.isFrozen(value)) return value
  Object.freeze(value)
  for (const child of Object.values(value)) deepFreeze(child)
  return value
}

function nonEmpty(text: string | undefined): string | undefined {
  return text === undefined || text.trim() === '' ? undefined : text.trim()
}
