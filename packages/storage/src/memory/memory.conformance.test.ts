import { describeObjectStore } from '../testing/conformance.ts'
import { MemoryObjectStore } from './memory-object-store.ts'

describeObjectStore('memory', async () => ({
  store: new MemoryObjectStore(),
  capabilities: { conditionalPut: true, checksumAtIngest: true },
  [Symbol.asyncDispose]: async () => {},
}))

describeObjectStore('memory without conditional put and checksums', async () => ({
  store: new MemoryObjectStore({ conditionalPut: false, checksumAtIngest: false }),
  capabilities: { conditionalPut: false, checksumAtIngest: false },
  [Symbol.asyncDispose]: async () => {},
}))
