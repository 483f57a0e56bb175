/** Synthetic data directories. The same seed gives the same tree. */
import { createHash } from 'node:crypto'

export interface SampleFile {
  readonly type: 'file' | 'directory' | 'symlink'
  /** One character per byte. */
  readonly path: string
  readonly mode: number
  readonly bytes: Buffer
  readonly linkTarget: string
}

/** Bytes that are the same for the same name; `dense` ones do not compress. */
export function sampleBytes(name: string, length: number, dense: boolean): Buffer {
  const bytes = Buffer.alloc(length)
  let block = createHash('sha256').update(name).digest()
  for (let at = 0; at < length; at += 32) {
    if (dense || at % 4096 === 0) block = createHash('sha256').update(block).digest()
    block.copy(bytes, at)
  }
  return bytes
}

export function sampleFile(path: string, length: number, dense = true): SampleFile {
  return { type: 'file', path, mode: 0o600, bytes: sampleBytes(path, length, dense), linkTarget: '' }
}

const directory = (path: string): SampleFile => ({
  type: 'directory',
  path,
  mode: 0o700,
  bytes: Buffer.alloc(0),
  linkTarget: '',
})

/** A bit of everything, about 2 MB: empty, small, border-sized and large files, odd names, directories. */
export function smallTree(): SampleFile[] {
  return [
    directory('base'),
    directory('base/1'),
    sampleFile('PG_VERSION', 3),
    sampleFile('base/1/empty', 0),
    ...Array.from({ length: 30 }, (_, i) => sampleFile(`base/1/${1000 + i}`, i * 700, i % 2 === 0)),
    sampleFile('base/1/quarter', 262_144, false),
    sampleFile('base/1/quarter_less_one', 262_143, false),
    sampleFile('base/1/whole', 1_048_576),
    sampleFile('base/1/more', 1_048_577, false),
    sampleFile('odd name with \xfc, \x01 and a "quote"', 10),
  ]
}
