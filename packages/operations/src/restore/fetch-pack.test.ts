import { createHash, randomBytes } from 'node:crypto'
import type { Repository } from '@tidemark/repository'
import { newSampleSet, noDeadline } from '@tidemark/repository/testing'
import { expect, test } from 'vitest'
import { checkPack } from './fetch-pack.ts'

test.each([
  { read: 'whole', ends: [100] },
  { read: 'in ranges', ends: [40, 80, 100] },
])('an object read $read is the recorded one only without a byte more or less', async ({ ends }) => {
  const bytes = randomBytes(100)
  const pack = { name: 'pack-1', bytes: 100, sha256: createHash('sha256').update(bytes).digest('hex') }
  const sample = await newSampleSet()
  const repository = sample.set.repositories[0] as Repository
  const check = async (name: string, stored: Buffer): Promise<string[]> => {
    await repository.store.put(name, stored, { signal: noDeadline })
    return checkPack(repository, name, pack, 'a-backup', noDeadline, ends)
  }
  expect(await check('x/same', bytes)).toHaveLength(ends.length)
  await expect(check('x/longer', Buffer.concat([bytes, Buffer.from([0])]))).rejects.toThrow('larger than recorded')
  await expect(check('x/shorter', bytes.subarray(0, 99))).rejects.toThrow('shorter than recorded')
  await expect(check('x/other', Buffer.alloc(100))).rejects.toThrow('SHA-256')
})
