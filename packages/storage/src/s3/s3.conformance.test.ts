import { ListObjectVersionsCommand } from '@aws-sdk/client-s3'
import { Redacted } from '@tidemark/kernel'
import { sharedS3, type TestS3 } from '@tidemark/testkit'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { StoreAccessDeniedError, StoreMissingError } from '../errors.ts'
import { collect } from '../testing/collect.ts'
import { describeObjectStore, type StoreUnderTest } from '../testing/conformance.ts'
import type { S3Options } from './s3-client.ts'
import { S3ObjectStore } from './s3-object-store.ts'

const signal = new AbortController().signal
let s3: TestS3
beforeAll(async () => {
  s3 = await sharedS3()
})
afterAll(() => s3[Symbol.asyncDispose]())

const optionsOf = (server: TestS3, https: boolean): S3Options => ({
  endpoint: (https ? server.httpsEndpoint : undefined) ?? server.endpoint,
  region: server.region,
  credentials: { accessKeyId: server.accessKeyId, secretAccessKey: new Redacted(server.secretAccessKey) },
  ...(https && server.caFile !== undefined && { caFile: server.caFile }),
})

async function makeStore(https: boolean, versioned: boolean, prefix: string): Promise<StoreUnderTest> {
  const bucket = await s3.createBucket(undefined, { versioned })
  return {
    store: await S3ObjectStore.open({ ...optionsOf(s3, https), bucket, prefix }),
    capabilities: { conditionalPut: !versioned, checksumAtIngest: true },
    [Symbol.asyncDispose]: async () => {},
  }
}

describeObjectStore('s3 over http', () => makeStore(false, false, 'some/prefix'))
describeObjectStore('s3 over https, at the root of a bucket', () => makeStore(true, false, ''))
describeObjectStore('s3, versioned bucket: conditional puts are not enforced', () => makeStore(false, true, 'p'))

test('the probe leaves no version behind in a versioned bucket', async () => {
  const bucket = await s3.createBucket(undefined, { versioned: true })
  await using store = await S3ObjectStore.open({ ...optionsOf(s3, false), bucket, prefix: 'p' })
  await store.probe(signal)
  const { Versions, DeleteMarkers } = await s3.client().send(new ListObjectVersionsCommand({ Bucket: bucket }))
  expect([Versions ?? [], DeleteMarkers ?? []]).toEqual([[], []])
})

test('a missing bucket is missing for every method, never an absent object', async () => {
  await using store = await S3ObjectStore.open({ ...optionsOf(s3, false), bucket: 'no-such-bucket', prefix: 'p' })
  const calls = [
    () => store.put('a', Buffer.from('x'), { signal }),
    () => store.putIfAbsent('a', Buffer.from('x'), { signal }),
    () => store.get('a', { signal }),
    () => store.stat('a', signal),
    () => collect(store.list('', { signal })),
    () => collect(store.listFolders('', signal)),
    () => store.delete(['a'], signal),
    () => store.storeTime(signal),
    () => store.probe(signal),
  ]
  for (const call of calls) await expect(call()).rejects.toThrow(StoreMissingError)
})

test('wrong keys and an unknown certificate are refused access, not retried', async () => {
  const bucket = await s3.createBucket()
  const good = optionsOf(s3, false)
  const wrongSecret = { accessKeyId: s3.accessKeyId, secretAccessKey: new Redacted('wrong') }
  const unknownKey = { accessKeyId: 'nobody', secretAccessKey: new Redacted('wrong') }
  for (const credentials of [wrongSecret, unknownKey]) {
    await using store = await S3ObjectStore.open({ ...good, credentials, bucket, prefix: '' })
    await expect(store.put('a', Buffer.from('x'), { signal })).rejects.toThrow(StoreAccessDeniedError)
    await expect(store.get('a', { signal })).rejects.toThrow(StoreAccessDeniedError)
    await expect(store.stat('a', signal)).rejects.toThrow(StoreAccessDeniedError)
    await expect(collect(store.list('', { signal }))).rejects.toThrow(StoreAccessDeniedError)
  }
  if (s3.httpsEndpoint === undefined || s3.caFile === undefined) return
  await using store = await S3ObjectStore.open({ ...good, endpoint: s3.httpsEndpoint, bucket, prefix: '' })
  await expect(store.get('a', { signal })).rejects.toMatchObject({ hint: expect.stringContaining('caFile') as string })
})
