import { expect, test } from 'vitest'
import { StoreLocationError, StoreMissingError } from './errors.ts'
import { openObjectStore } from './open-object-store.ts'

test.each([
  '/srv/backup',
  'srv',
  'ftp://host/x',
  'file://host/path',
  'file:///',
  's3://ab/x',
  's3://bucket/a//b',
  's3://bucket/a b',
  's3://key:secret@bucket/x',
  's3://bucket/x?region=y',
])('%s is no store', async (location) => {
  await expect(openObjectStore(location)).rejects.toThrow(StoreLocationError)
})

test('a location with credentials in it does not show them in the error', async () => {
  const error: unknown = await openObjectStore('s3://key:hunter2@bucket/x').catch((error: unknown) => error)
  expect(JSON.stringify([error, String(error)])).not.toContain('hunter2')
})

test('a folder that is not there is missing', async () => {
  await expect(openObjectStore('file:///no/such/folder')).rejects.toThrow(StoreMissingError)
})

test.each([
  ['s3://bucket', 's3://bucket'],
  ['s3://bucket/', 's3://bucket'],
  ['s3://bucket/a/b/', 's3://bucket/a/b'],
])('%s is opened as %s', async (location, url) => {
  await using store = await openObjectStore(location, { s3: { region: 'us-east-1' } })
  expect(store.url).toBe(url)
})
