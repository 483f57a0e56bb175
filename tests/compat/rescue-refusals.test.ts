/**
 * The rescue script on a repository that somebody else can write, on a host that others use too.
 *
 * Who puts objects into the bucket must not lock the set, run anything, or fill the host's memory.
 */
import { randomBytes } from 'node:crypto'
import { readFileSync, readdirSync } from 'node:fs'
import { chmod, copyFile, mkdir, rename, stat, symlink, truncate, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { KeyEncryptionKey } from '@tidemark/crypto'
import { TemporaryFolder } from '@tidemark/testkit'
import { expect, test } from 'vitest'
import { Forge } from './forge.ts'
import { EXIT, FIXTURE_KEY, READABLE, expectedOf, giveAway, rescue, rescueWith, unpack } from './run-rescue.ts'

const VERSION = READABLE.at(-1) as string
const KEY = FIXTURE_KEY.toString('hex')
const { backups } = expectedOf(VERSION)
const [CBC, GCM] = backups.map(({ backupId }) => backupId) as [string, string]
const CHILD = 'c0ffee00c0ffee00'
const LATER = '29991231T235959999Z'
/** Fails where more than a little is read into memory. */
const SMALL_HOST = 'import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))'
const NO_ED25519 = 'LibCrypto.ed25519 = lambda *_: None'

async function forged(folder: TemporaryFolder): Promise<Forge> {
  return Forge.open(await unpack(folder, VERSION))
}

/** A fixture is no cluster: where everything was laid out, this is what the script says last. */
const LAID_OUT = { code: EXIT.damaged, stderr: expect.stringContaining('global/pg_control is not in') as string }

test('objects that anybody can add lock no backup: what is not signed is passed over, and said', async () => {
  await using folder = await TemporaryFolder.create('rescue')
  const forge = await forged(folder)
  const { repository } = forge
  const record = forge.recordName(CBC)
  const records = join(record, '..')
  forge.write('keys/keyring-2-00.json', '{"format":"tidemark-keyring","version":2}\nx\n')
  forge.write('keys/keyring-3-00.json', `${'['.repeat(200_000)}\nx\n`)
  const foreign = `{"signature":"${'A'.repeat(86)}==","publicKey":"${forge.keys.keyring.publicKey}"}`
  forge.write('keys/keyring-4-00.json', `${'['.repeat(200_000)}\n${foreign}\n`)
  forge.write('keys/keyring-5-00.json', `{"format":"tidemark-keyring","version":2,"requires":["x"]}\n${foreign}\n`)
  forge.write('keys/keyring-6-00.json/object', 'a folder')
  forge.write('keys/keyring-7-00.json', readFileSync(join(repository, record)))
  forge.write('keys/keyring-8-00.json', readFileSync(join(repository, forge.keyringName)))
  forge.write('keys/other.json', 'x')
  forge.write('clusters/a b/1/records/x', 'x')
  forge.write('clusters/main/x y/records/x', 'x')
  forge.write('clusters/file', 'x')
  forge.write(`${records}/garbage.json`, 'x')
  forge.write(`${records}/20990101T000000000Z-${CBC}.json/object`, 'a folder')
  await copyFile(join(repository, record), join(repository, records, `${LATER}-${CBC}.json`))
  const { code, stderr } = await rescue(repository, KEY, 'verify', CBC)
  expect({ code, stderr }).toMatchObject({ code: 0 })
  for (const number of [2, 3, 4, 5, 6, 7, 8]) expect(stderr).toContain(`WARNING: keys/keyring-${number}-00.json`)
  expect(stderr).toMatch(/passed over: .*2999.* belongs elsewhere/)
  expect(stderr).not.toContain('other.json')

  const listed = await rescue(repository, '', 'list')
  expect(listed.code).toBe(EXIT.damaged)
  expect(listed.stdout.match(/^[0-9a-f]{16}/gm)).toEqual([CBC, GCM])
  expect(listed.stdout.match(/^UNTRUSTED .*$/gm)).toHaveLength(2)

  // Only the copy is left: it is no backup.
  await rename(join(repository, record), folder.join('away'))
  expect(await rescue(repository, KEY, 'verify', CBC)).toMatchObject({ code: EXIT.damaged })
})

test('a signed keyring or record of a later version is refused by its version, and not passed over', async () => {
  await using folder = await TemporaryFolder.create('rescue')
  const forge = await forged(folder)
  const { repository } = forge
  const record = forge.record(CBC)
  for (const later of [{ version: 2 }, { requires: ['quorum'] }]) {
    forge.writeRecord({ ...record, ...later })
    expect(await rescue(repository, KEY, 'verify', CBC)).toMatchObject({ code: EXIT.unknown })
    expect(await rescue(repository, KEY, 'verify', GCM)).toMatchObject({ code: 0 })
  }
  forge.writeRecord({ ...record, requires: [] })
  for (const later of [{ version: 2 }, { requires: ['quorum'] }]) {
    forge.sign('keys/keyring-2-00.json', { ...forge.keyring(), number: 2, ...later })
    expect(await rescue(repository, KEY, 'verify', CBC)).toMatchObject({ code: EXIT.unknown })
  }
})

test('after a key rotation either key opens the backup, and only what it needs must open', async () => {
  await using folder = await TemporaryFolder.create('rescue')
  const forge = await forged(folder)
  const { repository } = forge
  const secret = randomBytes(32)
  const { newKeyId, ...ring } = forge.rotated(12, new KeyEncryptionKey(secret))
  forge.sign('keys/keyring-12-0a.json', ring)
  for (const key of [KEY, secret.toString('hex')])
    expect(await rescue(repository, key, 'verify', CBC)).toMatchObject({ code: 0 })
  const shown = await rescue(repository, KEY, 'keyring')
  expect(shown).toMatchObject({ code: 0, stdout: expect.stringContaining(`data key ${newKeyId}: NOT wrapped`) })
  expect(await rescue(repository, '11'.repeat(32), 'keyring')).toMatchObject({ code: EXIT.key })

  // A fork: the same number twice. Its own wraps of types and keys to come are not ours to open.
  const other = randomBytes(32)
  const { newKeyId: otherId, ...fork } = forge.rotated(12, new KeyEncryptionKey(other))
  const future = { type: 'ml-kem-1024', recipient: 'later' }
  forge.sign('keys/keyring-12-0b.json', {
    ...fork,
    digestKey: { wraps: [future, ...fork.digestKey.wraps] },
    signing: [{ publicKey: 'AAAA', createdAt: ring.createdAt, wraps: [future] }, ...fork.signing],
    more: 'members that a reader does not know',
  })
  for (const key of [secret, other])
    expect(await rescue(repository, key.toString('hex'), 'verify', GCM)).toMatchObject({ code: 0 })
  expect((await rescue(repository, other.toString('hex'), 'keyring')).stdout).toContain(`data key ${otherId}: opens`)

  // The name's number is the payload's, as numbers.
  await rename(join(repository, 'keys/keyring-12-0b.json'), join(repository, 'keys/keyring-13-0b.json'))
  expect(await rescue(repository, other.toString('hex'), 'keyring')).toMatchObject({ code: EXIT.key })
  await rename(join(repository, 'keys/keyring-13-0b.json'), join(repository, 'keys/keyring-0012-0b.json'))
  expect(await rescue(repository, other.toString('hex'), 'keyring')).toMatchObject({ code: 0 })

  forge.writeRecord({ ...forge.record(CBC), dataKeys: [newKeyId] })
  expect(await rescue(repository, KEY, 'verify', CBC)).toMatchObject({ code: EXIT.key })
})

test('packs that lie in the folder of a parent are read from there, under its identity', async () => {
  await using folder = await TemporaryFolder.create('rescue')
  const forge = await forged(folder)
  forge.child(CBC, CHILD, 'aes-256-gcm')
  giveAway(forge.repository)
  expect(readdirSync(join(forge.repository, forge.base(CHILD))).filter((name) => name.startsWith('pack-'))).toEqual([])
  expect(await rescue(forge.repository, KEY, 'verify', CHILD)).toMatchObject({ code: 0 })
  const target = join(await folder.serverFolder('targets'), 'child')
  expect(await rescue(forge.repository, KEY, 'restore', CHILD, target)).toMatchObject(LAID_OUT)
  expect(readFileSync(join(target, 'PG_VERSION'), 'utf8')).toBe('15\n')

  const [head, ...lines] = forge.table(CHILD)
  const disowned = lines.map((line) => line.replace(`"backup":"${CBC}"`, `"backup":"${GCM}"`))
  forge.writeTable(forge.record(CHILD), [head as string, ...disowned])
  expect(await rescue(forge.repository, KEY, 'verify', CHILD)).toMatchObject({ code: EXIT.damaged })
})

test('a pack table in another order, or with lines or members that version 1 has not, is refused', async () => {
  await using folder = await TemporaryFolder.create('rescue')
  const forge = await forged(folder)
  const record = forge.record(GCM)
  const [head, ...rest] = forge.table(GCM) as [string, ...string[]]
  const lines = rest.slice(0, -1)
  const end = rest.at(-1) as string
  const swapped = [...lines.slice(-1), ...lines.slice(0, -1)]
  const bad: [readonly string[], RegExp][] = [
    [[head, ...swapped, end], /out of order/],
    [[head, ...lines, '{"lock":"x"}', `{"end":${lines.length + 1}}`], /unknown kind/],
    [[head, ...lines.map((line) => line.replace('"bytes":', '"mode":1,"bytes":')), end], /other members/],
    [[head, ...lines.map((line) => line.replace('files-00001', 'files-00002')), end], /files-00002: not the name/],
    [[head, ...lines.map((line) => line.replace(/"bytes":\d+/, '"bytes":-2')), end], /no size/],
    [[head, ...lines, lines.at(-1) as string, `{"end":${lines.length + 1}}`], /twice/],
    [[head, ...lines, `{"end":${lines.length + 1}}`], /cut short/],
  ]
  for (const [table, reason] of bad) {
    forge.writeTable(record, table)
    const { code, stderr } = await rescue(forge.repository, KEY, 'verify', GCM)
    expect(stderr).toMatch(reason)
    expect([EXIT.unknown, EXIT.damaged]).toContain(code)
  }
  forge.writeTable(record, [head, ...lines, end])
  expect(await rescue(forge.repository, KEY, 'verify', GCM)).toMatchObject({ code: 0 })
})

test('a backup of a damaged source is no restorable point: its own exit code, and restored only when told to', async () => {
  await using folder = await TemporaryFolder.create('rescue')
  const forge = await forged(folder)
  const targets = await folder.serverFolder('targets')
  for (const verdict of ['damaged', 'a word of later']) {
    forge.writeRecord({ ...forge.record(CBC), verdict, damage: ['page 7 of base/1/2600'] })
    const verified = await rescue(forge.repository, KEY, 'verify', CBC)
    expect(verified).toMatchObject({ code: EXIT.noPoint, stdout: '', stderr: expect.stringContaining('page 7') })
    const target = join(targets, verdict)
    expect(await rescue(forge.repository, KEY, 'restore', CBC, target)).toMatchObject({ code: EXIT.noPoint })
    await expect(stat(target)).rejects.toMatchObject({ code: 'ENOENT' })
    const told = await rescue(forge.repository, KEY, 'restore', CBC, target, '--allow-damaged')
    expect(told).toMatchObject(LAID_OUT)
  }
})

test('where no signature can be checked, nothing that a record says gets into the configuration', async () => {
  await using folder = await TemporaryFolder.create('rescue')
  const forge = await forged(folder)
  const { repository } = forge
  const name = forge.recordName(CBC)
  const record = forge.record(CBC)
  const hostile = {
    max_connections: '500',
    max_wal_senders: "10'\nrestore_command = 'touch /tmp/x",
    max_worker_processes: '٣',
    restore_command: 'touch /tmp/x',
    archive_mode: 'on',
    listen_addresses: '*',
    shared_preload_libraries: '/tmp/x.so',
    "a = 'b'\nssl": 'on',
  }
  const server = { ...(record['server'] as object), minimumSettings: hostile }
  const [, signature] = readFileSync(join(repository, name), 'utf8').split('\n')
  forge.write(name, `${JSON.stringify({ ...record, server })}\n${signature}\n`)
  forge.write('keys/keyring-2-00.json', `{"format":"tidemark-keyring","version":2}\n${signature}\n`)
  const targets = await folder.serverFolder('targets')
  const refused = await rescueWith(NO_ED25519, repository, KEY, 'verify', CBC)
  expect(refused).toMatchObject({ code: EXIT.damaged })
  expect(refused.stderr).toContain('say --unsigned to go on')
  // A host that can check does so, whatever it was told.
  const checked = await rescue(repository, KEY, '--unsigned', 'verify', CBC)
  expect(checked).toMatchObject({ code: EXIT.damaged, stderr: expect.stringContaining('signature does not hold') })

  const target = join(targets, "un'signed")
  const restored = await rescueWith(NO_ED25519, repository, KEY, '--unsigned', 'restore', CBC, target)
  expect(restored).toMatchObject(LAID_OUT)
  expect(restored.stderr).toContain("WARNING: the record's setting 'restore_command'")
  const settings = readFileSync(join(target, 'postgresql.conf'), 'utf8').split('\n')
  const names = settings
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => line.split(' = ')[0] ?? '')
  expect(names.toSorted()).toEqual([...new Set(names)].toSorted())
  expect(names[0]).toBe('max_connections')
  expect(names.filter((each) => each.startsWith('max_')).toSorted()).toEqual([
    'max_connections',
    'max_logical_replication_workers',
  ])
  for (const line of ["listen_addresses = ''", "archive_mode = 'off'", "shared_preload_libraries = ''"])
    expect(settings).toContain(line)
  expect(settings.join('\n')).not.toContain('/tmp/x')
  expect(settings.find((line) => line.startsWith('restore_command'))).toContain(`un''"''"''signed`)
})

test('a document that is nested without end or too long is refused in little memory, without a traceback', async () => {
  await using folder = await TemporaryFolder.create('rescue')
  const forge = await forged(folder)
  const { repository } = forge
  const base = forge.base(CBC)
  const wal = (JSON.parse(forge.table(CBC).find((line) => line.startsWith('{"wal"')) as string) as { wal: string }).wal
  const huge = 1 << 30
  const names = [
    'tidemark.json',
    forge.recordName(CBC),
    forge.keyringName,
    ...['packs.jsonl', 'pack-00001', 'files-00001', 'source'].map((name) => `${base}/${name}`),
    join(base, '../..', wal),
  ]
  for (const name of names) {
    const path = join(repository, name)
    const good = readFileSync(path)
    await truncate(path, 4 * huge)
    const { code, stderr } = await rescueWith(SMALL_HOST, repository, KEY, 'verify', CBC)
    expect({ name, code, stderr }).toMatchObject({ code: EXIT.damaged })
    expect(stderr).toMatch(/more than \d+ bytes|not the (bytes|size) that|bytes after the last frame/)
    await writeFile(path, good)
    if (!name.endsWith('.json')) continue
    await writeFile(path, '['.repeat(200_000))
    const nested = await rescue(repository, KEY, 'verify', CBC)
    expect({ name, ...nested }).toMatchObject({ code: EXIT.damaged, stderr: expect.not.stringContaining('Traceback') })
    const unsigned = await rescueWith(NO_ED25519, repository, KEY, '--unsigned', 'verify', CBC)
    expect({ name, ...unsigned }).toMatchObject({
      code: EXIT.damaged,
      stderr: expect.not.stringContaining('Traceback'),
    })
    await writeFile(path, good)
  }
  expect((await rescueWith(SMALL_HOST, repository, KEY, 'verify', CBC)).code).toBe(0)
})

test('nothing is restored as root, nor into a directory that another user owns or prepared', async () => {
  await using folder = await TemporaryFolder.create('rescue')
  const { repository } = await forged(folder)
  const targets = await folder.serverFolder('targets')
  const target = join(targets, 'target')
  const root = await rescueWith('os.geteuid = lambda: 0', repository, KEY, 'restore', CBC, target)
  expect(root).toMatchObject({ code: EXIT.usage, stderr: expect.stringContaining('runuser -u postgres') })
  await expect(stat(target)).rejects.toMatchObject({ code: 'ENOENT' })

  await mkdir(target)
  giveAway(target)
  await chmod(target, 0o755)
  const foreign = await rescueWith('os.geteuid = lambda: 12345', repository, KEY, 'restore', CBC, target)
  expect(foreign).toMatchObject({ code: EXIT.target, stderr: expect.stringContaining('belongs to another user') })
  expect((await stat(target)).mode & 0o777).toBe(0o755)
  await chmod(target, 0o777)
  await mkdir(join(target, 'base'))
  const prepared = await rescue(repository, KEY, 'restore', CBC, target)
  expect(prepared).toMatchObject({ code: EXIT.target, stderr: expect.stringContaining('not empty') })
  expect((await stat(target)).mode & 0o777).toBe(0o777)
})

test('a target that is swapped for a link meanwhile leads no byte elsewhere', async () => {
  await using folder = await TemporaryFolder.create('rescue')
  const { repository } = await forged(folder)
  const targets = await folder.serverFolder('targets')
  const decoy = join(targets, 'decoy')
  await mkdir(decoy)
  giveAway(decoy)
  const swap = [
    'take = Restore._take',
    'def swapped(self, path):',
    '    take(self, path)',
    '    os.rename(path, path + b".away")',
    `    os.symlink(${JSON.stringify(decoy)}.encode(), path)`,
    'Restore._take = swapped',
  ].join('\n')
  const target = join(targets, 'target')
  expect(await rescueWith(swap, repository, KEY, 'restore', CBC, target)).toMatchObject(LAID_OUT)
  expect(readdirSync(decoy)).toEqual([])
  expect(readdirSync(`${target}.away`)).toContain('PG_VERSION')

  // A link that was there before is followed once, to a directory that is ours.
  await symlink(join(targets, basename('real')), join(targets, 'link'))
  expect(await rescue(repository, KEY, 'restore', CBC, join(targets, 'link'))).toMatchObject(LAID_OUT)
  expect(readdirSync(join(targets, 'real'))).toContain('PG_VERSION')
})
