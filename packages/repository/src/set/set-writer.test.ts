import { silentLogger, systemClock } from '@tidemark/kernel'
import { StoreFullError } from '@tidemark/storage'
import { expect, test } from 'vitest'
import { RequiredRepositoryError } from '../errors.ts'
import { newSampleSet } from '../testing/sample-set.ts'
import { SetWriter } from './set-writer.ts'

const { signal } = new AbortController()
const full = (): Promise<void> => Promise.reject(new StoreFullError('writing x', 'memory://0'))

test('a set of one repository that is not required fails as a whole, and leaves no rejection that nobody handles', async () => {
  const { set } = await newSampleSet([false])
  const unhandled: unknown[] = []
  const note = (reason: unknown): void => void unhandled.push(reason)
  process.on('unhandledRejection', note)
  try {
    const writer = new SetWriter(set.repositories, silentLogger, systemClock)
    await expect(writer.each(full, signal)).rejects.toThrow(RequiredRepositoryError)
    await new Promise((resolve) => setImmediate(resolve))
    expect(unhandled).toEqual([])
  } finally {
    process.off('unhandledRejection', note)
  }
})
