import { setFlagsFromString } from 'node:v8'

/**
 * Has V8 collect early, in this thread and all that are started after: memory is promised to users, and these processes spend their time
 * outside of the heap.
 *
 * - The young generation stays at its first size, 1 MiB a semi-space. It would grow to three times 16 MiB a thread under a stream of small
 *   objects, and the buffers that the dead ones hold (16 KiB each from TLS) would stay until it is full: some 100 MiB together.
 * - The old generation is collected when it has grown by a quarter, not when it has doubled or more: some 80 MiB where millions of
 *   files are compared.
 */
export function keepHeapSmall(): void {
  setFlagsFromString('--semi-space-growth-factor=1')
  setFlagsFromString('--heap-growing-percent=25')
}
