import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

type CollectGarbage = (options: { type: 'minor' }) => void

let collect: CollectGarbage | undefined

/**
 * Frees the buffers of the recent past, now, in this thread.
 *
 * zlib and ciphers give every result in a new buffer outside of V8's heap; V8 sees only tiny wrappers and lets
 * tens of megabytes per thread pile up before it looks. A minor collection of such a heap costs well under a millisecond. Call it
 * once per some MiB of results, where memory is promised to be bounded.
 */
export function releaseBuffers(): void {
  if (collect === undefined) {
    setFlagsFromString('--expose-gc')
    collect = runInNewContext('gc') as CollectGarbage
  }
  collect({ type: 'minor' })
}
