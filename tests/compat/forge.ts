/** What somebody who holds the set's keys could write, or a later version: fixtures that no writer of today makes. */
import { createHash, randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { type KeyEncryptionKey, type StreamIdentity, type SuiteName, sealBytes, unsealBytes } from '@tidemark/crypto'
import { type OpenedKeys, openKeys, openRepositorySet } from '@tidemark/repository'
import { filePlace, noDeadline } from '../support/repositories.ts'
import { FIXTURE_TEST_KEY } from './fixture-key.ts'

export type Json = Record<string, unknown>
type Wraps = ReturnType<KeyEncryptionKey['wrap']>[]

interface KeyringPayload extends Json {
  readonly setId: string
  readonly dataKeys: { id: string; createdAt: string; wraps: Wraps }[]
  readonly digestKey: { wraps: Wraps }
  readonly signing: { publicKey: string; wraps: Wraps }[]
}

interface RecordPayload extends Json {
  readonly backupId: string
  readonly cluster: string
  readonly systemId: string
  readonly stoppedAt: string
}

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

const payloadOf = (path: string): unknown => JSON.parse(readFileSync(path, 'utf8').split('\n')[0] as string)

/** An unpacked fixture whose documents can be written anew, signed by the set's own key. */
export class Forge {
  readonly repository: string
  readonly keys: OpenedKeys

  private constructor(repository: string, keys: OpenedKeys) {
    this.repository = repository
    this.keys = keys
  }

  static async open(repository: string): Promise<Forge> {
    const set = await openRepositorySet([await filePlace('fixture', repository)], undefined, noDeadline)
    return new Forge(repository, await openKeys(set, [FIXTURE_TEST_KEY], noDeadline))
  }

  write(name: string, bytes: string | Uint8Array): void {
    mkdirSync(dirname(join(this.repository, name)), { recursive: true })
    writeFileSync(join(this.repository, name), bytes)
  }

  sign(name: string, payload: object): void {
    this.write(name, this.keys.keyring.signer.sign(payload))
  }

  recordName(backupId: string): string {
    const names = readdirSync(this.repository, { recursive: true, encoding: 'utf8' })
    return names.find((name) => name.includes('/records/') && name.endsWith(`-${backupId}.json`)) as string
  }

  record(backupId: string): RecordPayload {
    return payloadOf(join(this.repository, this.recordName(backupId))) as RecordPayload
  }

  /** Under the name that the payload gives. */
  writeRecord(payload: RecordPayload): string {
    const { cluster, systemId, stoppedAt, backupId } = payload
    const name = `clusters/${cluster}/${systemId}/records/${stoppedAt.replaceAll(/[-:.]/g, '')}-${backupId}.json`
    this.sign(name, payload)
    return name
  }

  base(backupId: string): string {
    const { cluster, systemId } = this.record(backupId)
    return `clusters/${cluster}/${systemId}/base/${backupId}`
  }

  table(backupId: string): string[] {
    return readFileSync(join(this.repository, this.base(backupId), 'packs.jsonl'), 'utf8')
      .trimEnd()
      .split('\n')
  }

  /** A pack table that the record names, so that only its contents can be what is refused. */
  writeTable(record: RecordPayload, lines: readonly string[]): void {
    const { cluster, systemId, backupId } = record
    const bytes = Buffer.from(`${lines.join('\n')}\n`)
    this.write(`clusters/${cluster}/${systemId}/base/${backupId}/packs.jsonl`, bytes)
    this.writeRecord({ ...record, packTable: { bytes: bytes.length, sha256: sha256(bytes) } })
  }

  get keyringName(): string {
    return `keys/${readdirSync(join(this.repository, 'keys')).toSorted()[0]}`
  }

  keyring(): KeyringPayload {
    return payloadOf(join(this.repository, this.keyringName)) as KeyringPayload
  }

  /** The first keyring as a rotation writes it anew: every key of before, and one data key more, wrapped under another KEK. */
  rotated(number: number, kek: KeyEncryptionKey): KeyringPayload & { readonly newKeyId: string } {
    const { keyring } = this.keys
    const ring = this.keyring()
    const context = (purpose: string): string => `tidemark wrap ${ring.setId} ${purpose}`
    const wraps = (secret: Uint8Array, purpose: string): Wraps => [kek.wrap(secret, context(purpose))]
    const createdAt = '2026-06-01T00:00:00.000Z'
    const newKeyId = randomBytes(16).toString('hex')
    return {
      ...ring,
      number,
      createdAt,
      newKeyId,
      dataKeys: [
        ...ring.dataKeys.map((key) => ({ ...key, wraps: wraps(keyring.dataKey(key.id), `data-key ${key.id}`) })),
        { id: newKeyId, createdAt, wraps: wraps(randomBytes(32), `data-key ${newKeyId}`) },
      ],
      digestKey: { wraps: wraps(keyring.digestKey, 'digest-key') },
      signing: ring.signing.map((pair) => {
        const purpose = `signing-key ${pair.publicKey}`
        const seed = FIXTURE_TEST_KEY.unwrap(pair.wraps[0] as Wraps[number], context(purpose))
        return { ...pair, wraps: wraps(seed, purpose) }
      }),
    }
  }

  /** A backup that has nothing of its own but its documents: every pack lies in the folder of its parent. */
  child(parentId: string, backupId: string, suite: SuiteName): void {
    const { keyring } = this.keys
    const parent = this.record(parentId)
    const base = `clusters/${parent.cluster}/${parent.systemId}/base`
    const record = { ...parent, backupId, parents: [parentId], stoppedAt: '2026-03-01T00:00:00.000Z' }
    const reseal = (
      name: string,
      before: StreamIdentity,
      identity: StreamIdentity,
      change = (x: Buffer) => x,
    ): Json => {
      const stored = readFileSync(join(this.repository, base, parentId, name))
      const plain = change(unsealBytes(stored, keyring.dataKey, before, name))
      const sealed = sealBytes(plain, { suite, dataKey: keyring.writeKey, identity, compressionLevel: 3 })
      this.write(`${base}/${backupId}/${name}`, sealed)
      const salt = sealed.subarray(32, 64).toString('hex')
      return { name, bytes: sealed.length, sha256: sha256(sealed), salt }
    }
    const [, ...entries] = this.table(parentId)
    const lines = entries.map((line) => {
      const entry = JSON.parse(line) as Record<string, Json & { name: string; streamId: string }>
      if (entry['pack']) return { pack: { ...entry['pack'], backup: parentId } }
      if (entry['fileList']) {
        const ordinal = Number(entry['fileList'].name.slice('files-'.length))
        const before = { kind: 'file-list', backupId: parentId, ordinal } as const
        return { fileList: reseal(entry['fileList'].name, before, { ...before, backupId }) }
      }
      if (entry['source']) {
        const identity = { kind: 'other', streamId: entry['source'].streamId } as const
        const rename = (text: Buffer): Buffer => Buffer.from(text.toString().replace(parentId, backupId))
        return { source: { ...reseal('source', identity, identity, rename), streamId: identity.streamId } }
      }
      return entry
    })
    const head = JSON.stringify({ format: 'tidemark-packs', version: 1, backupId })
    this.writeTable(record, [head, ...lines.map((line) => JSON.stringify(line))])
  }
}
