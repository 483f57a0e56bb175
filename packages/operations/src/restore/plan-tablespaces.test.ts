import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { planTablespaces } from './plan-tablespaces.ts'

const OID = 16_400
let folder = ''
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tidemark-plan-'))
})
afterEach(() => rm(folder, { recursive: true }))

/** A tablespace of tablespace_map, at a place that this host does not have. */
async function planOne(seen: string[], mapping: 'mapped' | 'as it is'): Promise<unknown> {
  const location = join(folder, 'source')
  const known = {
    oids: [String(OID)],
    source: { tablespaces: [{ oid: String(OID), name: 'side', location, seen }] },
    mapped: [{ oid: OID, location }],
  }
  const tablespaceMappings = mapping === 'mapped' ? [{ from: location, to: join(folder, 'elsewhere') }] : []
  const wishes = { targetDirectory: join(folder, 'target'), tablespaceMappings, tablespaceRoot: undefined }
  return await planTablespaces(known, wishes, undefined, undefined)
}

test('a tablespace that was there before the backup is put where it is mapped to', async () => {
  await expect(planOne(['before', 'copy', 'after'], 'mapped')).resolves.toMatchObject([{ kind: 'copied' }])
  // Its making stands in the first segment, before the start of the backup: it is not replayed.
  await expect(planOne(['before', 'copy', 'after', 'wal'], 'mapped')).resolves.toMatchObject([{ kind: 'copied' }])
})

test('one that was made between preflight and copy is in both, map and WAL: recovery would link it to its old place again', async () => {
  const refused = { code: 'TABLESPACE_MAPPING_UNUSABLE' }
  await expect(planOne(['copy', 'after', 'wal'], 'mapped')).rejects.toMatchObject(refused)
  await expect(planOne(['copy', 'after', 'wal'], 'as it is')).resolves.toMatchObject([{ kind: 'copied' }])
})
