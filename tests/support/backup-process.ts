/**
 * A process that writes backups of made-up files, one after the other, until its standard input ends. Started by tests.
 *
 * Arguments: the repository's folder, the key in hex, a name for its files. Prints the id of each backup once it is committed.
 */
import { createHash } from 'node:crypto'
import { KeyEncryptionKey } from '@tidemark/crypto'
import { type Lsn, segmentStart, silentLogger, systemClock } from '@tidemark/kernel'
import { BackupWriter, NO_SOURCE_FACTS, openKeys, openRepositorySet } from '@tidemark/repository'
import { SAMPLE_SERVER } from '@tidemark/repository/testing'
import { openObjectStore } from '@tidemark/storage'

const SEGMENT_BYTES = 1_048_576
const [folder = '', key = '', name = ''] = process.argv.slice(2)
const signal = new AbortController().signal
const input = { ended: false }
process.stdin.on('end', () => (input.ended = true)).resume()

const place = { name: 'shared', required: true, store: await openObjectStore(`file://${folder}`) }
const set = await openRepositorySet([place], undefined, signal)
const keys = await openKeys(set, [new KeyEncryptionKey(Buffer.from(key, 'hex'))], signal)
for (let round = 0; !input.ended; round += 1) {
  await using writer = await BackupWriter.begin(
    set,
    keys,
    {
      cluster: 'main',
      systemId: '7301234567890123456',
      operationId: `${name}-${round}`,
      writerVersion: 'test',
      sealing: { suite: 'aes-256-gcm', compressionLevel: 0, threads: 1, uploads: 1, packBytes: 262_144 },
    },
    { clock: systemClock, logger: silentLogger, signal },
  )
  for (let file = 0; file < 12; file += 1) {
    const bytes = Buffer.alloc(300_000, createHash('sha256').update(`${name} ${round} ${file}`).digest())
    const head = { type: 'file', path: `f${file}`, mode: 0o600, modifiedAt: 0, linkTarget: '' } as const
    writer.beginFile({ ...head, size: bytes.length })
    await writer.write(bytes)
    await writer.endFile()
  }
  await writer.addWalSegment({ timeline: 1, segment: 7n, segmentBytes: SEGMENT_BYTES }, Buffer.alloc(SEGMENT_BYTES, 7))
  const startLsn = (segmentStart(7n, SEGMENT_BYTES) + 40n) as Lsn
  await writer.commit({
    timeline: 1,
    startLsn,
    stopLsn: (startLsn + 100n) as Lsn,
    verdict: 'intact',
    damage: [],
    server: { ...SAMPLE_SERVER, walSegmentBytes: SEGMENT_BYTES },
    source: NO_SOURCE_FACTS,
    skipped: 0,
    stoppedAt: new Date(),
  })
  process.stdout.write(`${writer.backupId}\n`)
}
process.exit(0)
