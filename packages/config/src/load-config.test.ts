import { generateKeyPairSync } from 'node:crypto'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { inspect } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ConfigInvalidError, hostOf, loadConfig } from './index.ts'
import type { Config, ConfigProblem } from './index.ts'

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'tidemark-config-'))
})
afterAll(() => rmSync(folder, { recursive: true }))

const MINIMAL = `
clusters:
  main:
    nodes: [{ host: 127.0.0.1 }]
repositories:
  local: { url: 'file:///var/lib/tidemark', shared: true }
`

function write(text: string): string {
  const path = join(folder, 'tidemark.yaml')
  writeFileSync(path, text)
  return path
}

function load(
  text: string,
  env: Record<string, string> = {},
  secrets: 'required' | 'stores' | 'optional' = 'required',
): Config {
  return loadConfig({ path: write(text), env, secrets })
}

function withPassword(reference: string): string {
  return MINIMAL.replace('nodes:', `password: ${reference}\n    nodes:`)
}

function problemsOf(text: string, env: Record<string, string> = {}): readonly ConfigProblem[] {
  try {
    load(text, env)
  } catch (error) {
    if (error instanceof ConfigInvalidError) return error.problems
    throw error
  }
  return []
}

test('a minimal file gets every default', () => {
  const config = load(MINIMAL)
  expect(config.clusters['main']).toMatchObject({
    nodes: [{ host: '127.0.0.1', port: 5432 }],
    user: 'tidemark',
    database: 'postgres',
    ssl: 'disable',
    repositories: ['local'],
  })
  expect(config.repositories['local']).toEqual({
    kind: 'file',
    name: 'local',
    url: 'file:///var/lib/tidemark',
    directory: '/var/lib/tidemark',
    shared: true,
    required: true,
  })
  expect(config.encryption).toEqual({ suite: 'aes-256-cbc-hmac-sha-256', oldKeys: [] })
  expect(config.backup).toMatchObject({ compressionLevel: 1, uploads: 2, packBytes: 16_777_216, checkpoint: 'fast' })
  expect(config.redis).toEqual({ url: 'redis://127.0.0.1:6379', prefix: '{tidemark}' })
  expect(config.api).toEqual({ host: '127.0.0.1', port: 8080, healthPort: 9310 })
  expect(config.logLevel).toBe('info')
})

test('all problems are reported at once, each with place, line and accepted form', () => {
  const problems = problemsOf(
    `
clusters:
  main:
    nodes: [{ host: db, port: 70000 }]
    usr: tidemark
    repositories: [local, s4]
repositories:
  local: { url: 'file:///srv/tidemark' }
  s3: { url: 's3://bucket/prefix', accessKeyId: AKIA }
backup: { compressionLevel: 42, packBytes: 3 parsecs }
api: { host: 0.0.0.0 }
`,
    { BACKUP_ENCRYPTION_KEY: 'tooshort', TIDEMARK_LOG_LEVEL: 'loud' },
  )
  const byPlace = Object.fromEntries(problems.map(({ place, problem }) => [place, problem]))
  expect(byPlace['clusters.main.nodes[0].port']).toBe('must be a port, 1 to 65535')
  expect(byPlace['clusters.main']).toMatch(/^unknown key "usr"; known here: nodes, user, password/)
  expect(byPlace['repositories.local.host']).toMatch(/names either its host, or shared: true/)
  expect(byPlace['repositories.s3.accessKeyId']).toMatch(/a secret may not stand in this file/)
  expect(byPlace['backup.packBytes']).toBe('must be a size, 1MiB to 512MiB, like 16MiB')
  expect(byPlace['api.host']).toMatch(/loopback address .* no access control yet/)
  expect(byPlace['env TIDEMARK_LOG_LEVEL']).toBe('must be one of debug, info, warn, error, silent')
  expect(byPlace['env BACKUP_ENCRYPTION_KEY']).toMatch(/64 hex digits or the base64 of 32 bytes/)
  expect(problems.find(({ place }) => place === 'clusters.main')?.line).toBe(5)
  expect(problems.find(({ place }) => place === 'api.host')?.line).toBe(11)
})

test('a cluster that names a repository which is not configured is refused', () => {
  expect(problemsOf(MINIMAL.replace('nodes:', 'repositories: [local, s4]\n    nodes:'))).toEqual([
    { place: 'clusters.main.repositories[1]', problem: 'must be one of the configured repositories: local' },
  ])
})

describe('encryption keys', () => {
  const hex = '0123456789abcdef'.repeat(4)
  const bytes = Buffer.from(hex, 'hex')

  test('hex and base64 give the same 32 bytes; old keys keep their order', () => {
    const config = load(MINIMAL, {
      BACKUP_ENCRYPTION_KEY: hex.toUpperCase(),
      BACKUP_ENCRYPTION_KEY_OLD: `${bytes.toString('base64')}, ${'ff'.repeat(32)}`,
    })
    expect(config.encryption.key?.reveal()).toEqual(bytes)
    expect(config.encryption.oldKeys.map((key) => key.reveal()[0])).toEqual([0x01, 0xff])
  })

  test('a missing key is no error, for there are verbs that need none', () => {
    expect(load(MINIMAL).encryption.key).toBeUndefined()
  })

  test('a malformed key is an error that never shows it', () => {
    const malformed = `${hex.slice(0, 62)}zz`
    let thrown: unknown
    try {
      load(MINIMAL, { BACKUP_ENCRYPTION_KEY: malformed, BACKUP_ENCRYPTION_KEY_OLD: `${hex},${malformed}` })
    } catch (error) {
      thrown = error
    }
    expect(thrown).toBeInstanceOf(ConfigInvalidError)
    expect(inspect(thrown, { depth: 9 })).not.toContain(hex.slice(0, 20))
    expect((thrown as ConfigInvalidError).message).toContain('key 2 must be')
  })
})

describe('secrets', () => {
  test('are taken from the environment or a file, and do not print', () => {
    const file = join(folder, 'secret')
    writeFileSync(file, 'from-file\n', { mode: 0o600 })
    const config = load(withPassword(`{ file: ${file} }`))
    expect(config.clusters['main']?.password?.reveal()).toBe('from-file')
    expect(load(withPassword('{ env: PW }'), { PW: 'from-env' }).clusters['main']?.password?.reveal()).toBe('from-env')
    expect(inspect(config, { depth: 9 }) + JSON.stringify(config)).not.toContain('from-file')
    expect(config.warnings).toEqual([])
  })

  test('a secret file that everybody can read is a warning', () => {
    const file = join(folder, 'open-secret')
    writeFileSync(file, 'x')
    chmodSync(file, 0o644)
    expect(load(withPassword(`{ file: ${file} }`)).warnings).toEqual([
      `clusters.main.password: ${file} is readable by everybody; chmod 600 it`,
    ])
  })

  test('in the file itself are refused, also inside the Redis URL, and not repeated', () => {
    const problems = problemsOf(`${withPassword('hunter2')}\nredis: { url: 'redis://:hunter2@localhost:6379' }\n`)
    expect(problems.map(({ place }) => place)).toEqual(['clusters.main.password'])
    const urlProblems = problemsOf(`${MINIMAL}\nredis: { url: 'redis://:hunter2@localhost:6379' }\n`)
    expect(urlProblems).toHaveLength(1)
    expect(urlProblems[0]?.problem).toContain('redis.password: { env: NAME }')
    expect(JSON.stringify([problems, urlProblems])).not.toContain('hunter2')
  })

  test('that are missing are problems, unless this process does not use them', () => {
    expect(problemsOf(withPassword('{ env: ABSENT }'))).toEqual([
      { place: 'clusters.main.password', problem: 'environment variable ABSENT is not set' },
    ])
    expect(load(withPassword('{ env: ABSENT }'), {}, 'optional').clusters['main']?.password).toBeUndefined()
    expect(load(withPassword('{ env: ABSENT }'), {}, 'stores').clusters['main']?.password).toBeUndefined()
  })

  test('a YAML error quotes no source line', () => {
    const problems = problemsOf('clusters: { main: { password: "hunter2 }\n')
    expect(problems.length).toBeGreaterThan(0)
    expect(JSON.stringify(problems)).not.toContain('hunter2')
  })
})

test('the environment overrides the file; a password in TIDEMARK_REDIS_URL is split off', () => {
  const config = load(`${MINIMAL}\nlogLevel: warn\n`, {
    TIDEMARK_REDIS_URL: 'rediss://bull:p%40ss@cache:6380/2',
    TIDEMARK_LOG_LEVEL: 'debug',
    TIDEMARK_API_PORT: '0',
  })
  expect(config.redis.url).toBe('rediss://cache:6380/2')
  expect(config.redis.username).toBe('bull')
  expect(config.redis.password?.reveal()).toBe('p@ss')
  expect(config.logLevel).toBe('debug')
  expect(config.api.port).toBe(0)
})

test('TIDEMARK_CONFIG names the file', () => {
  const path = write(MINIMAL)
  expect(loadConfig({ env: { TIDEMARK_CONFIG: path } }).path).toBe(path)
  expect(() => loadConfig({ env: { TIDEMARK_CONFIG: '/does/not/exist' } })).toThrow(/cannot be read \(ENOENT\)/)
})

test('the configuration cannot be changed afterwards', () => {
  const config = load(MINIMAL)
  expect(() => Object.assign(config.api, { host: '0.0.0.0' })).toThrow(TypeError)
  expect(Object.isFrozen(config.clusters['main']?.nodes)).toBe(true)
})

test('no cluster is found under a name that every object has', () => {
  expect(load(MINIMAL).clusters['constructor']).toBeUndefined()
})

test('a file repository ties its clusters to its host, and to one host only', () => {
  const owned = MINIMAL.replace('shared: true', 'host: db1')
  expect(hostOf(load(owned), 'main')).toBe('db1')
  expect(hostOf(load(MINIMAL), 'main')).toBeUndefined()
  expect(problemsOf(`${owned}  other: { url: 'file:///b', host: db2 }\n`)[0]?.problem).toMatch(/one host only/)
})

test('an s3 repository is taken apart into bucket and prefix', () => {
  const config = load(
    `${MINIMAL}  far: { url: 's3://my-bucket/a/b/', endpoint: 'http://127.0.0.1:7480', forcePathStyle: true, required: false, accessKeyId: { env: ID }, secretAccessKey: { env: SECRET } }\n`,
    { ID: 'id', SECRET: 'secret' },
  )
  expect(config.repositories['far']).toMatchObject({
    kind: 's3',
    bucket: 'my-bucket',
    prefix: 'a/b',
    forcePathStyle: true,
    required: false,
  })
})

test('a pinned public key is accepted as PEM or base64 and normalised', () => {
  const { publicKey } = generateKeyPairSync('ed25519')
  const pem = publicKey.export({ format: 'pem', type: 'spki' }).toString()
  const raw = publicKey.export({ format: 'der', type: 'spki' }).subarray(-32).toString('base64')
  const indented = pem.trim().replaceAll('\n', '\n    ')
  expect(load(`${MINIMAL}\nencryption:\n  publicKey: |\n    ${indented}\n`).encryption.publicKey).toBe(raw)
  expect(load(`${MINIMAL}\nencryption: { publicKey: '${raw}' }\n`).encryption.publicKey).toBe(raw)
  expect(problemsOf(`${MINIMAL}\nencryption: { publicKey: abc }\n`)[0]?.problem).toMatch(/Ed25519 public key/)
})

test.each(['127.0.0.1', '127.9.9.9', '::1', 'localhost'])('the API may listen on %s', (host) => {
  expect(load(`${MINIMAL}\napi: { host: '${host}' }\n`).api.host).toBe(host)
})

test.each(['0.0.0.0', '::', '192.168.1.5', '127.0.0.1.evil.example', 'db1'])('the API may not listen on %s', (host) => {
  expect(problemsOf(`${MINIMAL}\napi: { host: '${host}' }\n`)[0]?.place).toBe('api.host')
})
