import { createHash } from 'node:crypto'
import { expect, test } from 'vitest'
import { readBackupManifest, type ManifestFile } from './backup-manifest.ts'

const body = `{ "PostgreSQL-Backup-Manifest-Version": 1,
"Files": [
{ "Path": "backup_label", "Size": 227, "Last-Modified": "2026-11-22 14:00:00 GMT", "Checksum-Algorithm": "SHA256", "Checksum": "${'ab'.repeat(32)}" },
{ "Path": "base/with \\"quote\\" }]", "Size": 0, "Last-Modified": "2026-11-22 14:00:01 GMT" },
{ "Encoded-Path": "626173652f636166e9", "Size": 8192, "Last-Modified": "1969-12-31 23:59:59 GMT", "Checksum-Algorithm": "SHA256", "Checksum": "${'cd'.repeat(32)}" }
],
"WAL-Ranges": [
{ "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000100" }
],
`
const manifest = (text: string): Buffer =>
  Buffer.from(`${text}"Manifest-Checksum": "${createHash('sha256').update(text).digest('hex')}"}\n`)

function inPieces(bytes: Buffer, size: number): Buffer[] {
  return Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) =>
    bytes.subarray(index * size, (index + 1) * size),
  )
}

test.each([1, 13, 4096])('files and WAL ranges are read from pieces of %i bytes', async (size) => {
  const files: ManifestFile[] = []
  const summary = await readBackupManifest(inPieces(manifest(body), size), (file) => void files.push(file))
  expect(summary).toEqual({
    version: 1,
    files: 3,
    walRanges: [{ timeline: 1, startLsn: 0x2000028n, endLsn: 0x2000100n }],
  })
  expect(files[0]).toEqual({
    path: 'backup_label',
    size: 227,
    mtime: Date.UTC(2026, 10, 22, 14) / 1000,
    checksumAlgorithm: 'SHA256',
    checksum: 'ab'.repeat(32),
  })
  expect(files[1]).toEqual({ path: 'base/with "quote" }]', size: 0, mtime: Date.UTC(2026, 10, 22, 14, 0, 1) / 1000 })
  expect(files[2]?.pathBytes).toEqual(Buffer.from('base/caf\xe9', 'latin1'))
  expect(files[2]?.mtime).toBe(-1)
})

test('the system identifier of version 2 is read exactly', async () => {
  const text = body
    .replace('"Files"', '"System-Identifier": 7711007683845361272,\n"Files"')
    .replace('Version": 1', 'Version": 2')
  expect(await readBackupManifest([manifest(text)], () => {})).toMatchObject({
    version: 2,
    systemId: '7711007683845361272',
  })
})

test('a changed byte, a cut end and bytes after the end are refused', async () => {
  const changed = manifest(body)
  changed[changed.indexOf('227')] = 0x33
  await expect(readBackupManifest([changed], () => {})).rejects.toThrow(/checksum does not match/)
  await expect(readBackupManifest([manifest(body).subarray(0, -20)], () => {})).rejects.toThrow(/cut short/)
  await expect(readBackupManifest([manifest(body), Buffer.from('x\n')], () => {})).rejects.toThrow(/goes on/)
  await expect(readBackupManifest([Buffer.from('{}\n')], () => {})).rejects.toThrow(/missing/)
})
