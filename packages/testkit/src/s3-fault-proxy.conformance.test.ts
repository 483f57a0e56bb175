import { GetObjectCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { S3FaultProxy, type S3Fault, type TestS3, random, sharedS3, until } from './index.ts'

const bytes = random(7).bytes(300_000)

let s3: TestS3
let proxy: S3FaultProxy
let client: S3Client
let Bucket: string
beforeAll(async () => {
  s3 = await sharedS3()
  Bucket = await s3.createBucket()
  proxy = await S3FaultProxy.start(s3)
  const { endpoint, region, accessKeyId, secretAccessKey } = proxy
  const credentials = { accessKeyId, secretAccessKey }
  client = new S3Client({ endpoint, region, credentials, forcePathStyle: true, maxAttempts: 1 })
})
beforeEach(() => proxy.heal())
afterAll(async () => {
  client?.destroy()
  await proxy?.[Symbol.asyncDispose]()
  await s3?.[Symbol.asyncDispose]()
})

const put = (Key: string, Body: Uint8Array = bytes, IfNoneMatch?: string) =>
  client.send(new PutObjectCommand({ Bucket, Key, Body, ...(IfNoneMatch === undefined ? {} : { IfNoneMatch }) }))
/** As the real server has it, around the proxy unless told otherwise. */
async function get(Key: string, from = s3.client()): Promise<Buffer> {
  const { Body } = await from.send(new GetObjectCommand({ Bucket, Key }))
  return Buffer.from((await Body?.transformToByteArray()) ?? [])
}

test('without a rule everything passes, signatures and conditions included', async () => {
  await put('plain', bytes, '*')
  await expect(put('plain', bytes, '*')).rejects.toMatchObject({ name: 'PreconditionFailed' })
  expect(await get('plain', client)).toEqual(bytes)
})

test('a rule counts the requests that it is about, and no others', async () => {
  const fault: S3Fault = { kind: 'status', status: 503, code: 'SlowDown' }
  proxy.add({ fault, method: 'PUT', path: /counted/, skip: 1, times: 2 })
  await put('other')
  await put('counted-1')
  await expect(put('counted-2')).rejects.toMatchObject({ name: 'SlowDown' })
  await expect(put('counted-2')).rejects.toMatchObject({ name: 'SlowDown' })
  await put('counted-2')
  expect(await get('counted-2')).toEqual(bytes)
})

test('a lost answer leaves the object stored; a reset leaves it not', async () => {
  proxy.add({ fault: { kind: 'lose-answer' }, path: /lost/ }, { fault: { kind: 'reset' }, path: /never/ })
  await expect(put('lost')).rejects.toMatchObject({ code: 'ECONNRESET' })
  await expect(put('never')).rejects.toMatchObject({ code: 'ECONNRESET' })
  expect(await get('lost')).toEqual(bytes)
  await expect(get('never')).rejects.toMatchObject({ name: 'NoSuchKey' })
})

test('answers are cut short, changed by one bit, and slowed', async () => {
  await put('read')
  proxy.add({ fault: { kind: 'truncate', bytes: 1000 }, method: 'GET' })
  await expect(get('read', client)).rejects.toThrow(/aborted|ECONNRESET|socket/)
  proxy.add({ fault: { kind: 'flip', byte: 250_000 }, method: 'GET' })
  const changed = await get('read', client)
  expect(changed.filter((byte, i) => byte !== bytes[i])).toHaveLength(1)
  expect(changed[250_000]).toBe(bytes[250_000]! ^ 1)
  proxy.add({ fault: { kind: 'slow', bytesPerSecond: 3_000_000 }, method: 'GET' })
  expect(await get('read', client)).toEqual(bytes)
})

test('two ways to lie about conditions: overwriting, and claiming to have stored', async () => {
  const other = random(8).bytes(1000)
  await put('mine')
  proxy.add({ fault: { kind: 'lie-stored' }, method: 'PUT' })
  await put('mine', other, '*')
  expect(await get('mine')).toEqual(bytes)
  proxy.add({ fault: { kind: 'overwrite' }, method: 'PUT' })
  await put('mine', other, '*')
  expect(await get('mine')).toEqual(other)
})

test('a request that hangs ends when the proxy is healed; one may wait for what a test does first', async () => {
  proxy.add({ fault: { kind: 'hang' }, path: /hangs/ })
  const hanging = put('hangs').then(
    () => 'stored',
    (error: { code?: string }) => error.code,
  )
  await until(() => proxy.faults('hang') === 1, { what: 'the request' })
  proxy.heal()
  expect(await hanging).toBe('ECONNRESET')
  let done = false
  proxy.add({ fault: { kind: 'act', action: () => (done = true) } })
  await put('after')
  expect(done).toBe(true)
})
