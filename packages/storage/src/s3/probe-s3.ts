import { hash, randomBytes } from 'node:crypto'
import { randomId } from '@tidemark/kernel'
import { ChecksumRefusedError } from '../errors.ts'
import type { ObjectName } from '../object-store.ts'
import type { PutAnswer } from './s3-object-store.ts'

export interface ProbeRequests {
  put(name: ObjectName, bytes: Uint8Array, how: { sha256: string; ifAbsent: boolean; md5?: string }): Promise<PutAnswer>
  remove(name: ObjectName, versionId: string | undefined): Promise<void>
  /** The same, tried once, and also after the caller has been stopped. */
  abandon(name: ObjectName, versionId: string | undefined): Promise<void>
}

export interface ProbedS3 {
  readonly conditionalPut: 'enforced' | 'ignored' | 'unsupported'
  /** Which checksum the store compares with what it received. */
  readonly checksum: 'sha256' | 'md5' | 'none'
}

/** Finds out by trying, with 20-byte objects, what bucket and store enforce. Removes what it wrote, versions included. */
export async function probeS3(requests: ProbeRequests): Promise<ProbedS3> {
  const written: { name: ObjectName; versionId: string | undefined }[] = []
  const put = async (
    name: ObjectName,
    how: { wrongSha256?: true; wrongMd5?: true; ifAbsent?: true },
  ): Promise<PutAnswer> => {
    const bytes = randomBytes(20)
    const other = randomBytes(20)
    const request = {
      sha256: hash('sha256', how.wrongSha256 ? other : bytes),
      ifAbsent: how.ifAbsent ?? false,
      ...(how.wrongMd5 && { md5: hash('md5', other, 'base64') }),
    }
    const answer = await requests.put(name, bytes, request).catch((error: unknown) => {
      // Without an answer, it may be there all the same.
      if (!(error instanceof ChecksumRefusedError)) written.push({ name, versionId: undefined })
      throw error
    })
    if (answer.outcome === 'stored') written.push({ name, versionId: answer.versionId })
    return answer
  }
  const refuses = async (how: { wrongSha256?: true; wrongMd5?: true }): Promise<boolean> => {
    try {
      await put(`scratch/probe-${randomId()}`, how)
      return false
    } catch (error) {
      if (error instanceof ChecksumRefusedError) return true
      throw error
    }
  }
  try {
    const name = `scratch/probe-${randomId()}`
    const first = await put(name, { ifAbsent: true })
    const second = first.outcome === 'unsupported' ? first : await put(name, { ifAbsent: true })
    // 'taken' the first time round: a repeated request found its own predecessor. That, too, is enforcement.
    const conditionalPut =
      second.outcome === 'taken' ? 'enforced' : second.outcome === 'unsupported' ? 'unsupported' : 'ignored'
    if (first.outcome === 'taken') written.push({ name, versionId: undefined })
    const checksum = (await refuses({ wrongSha256: true }))
      ? 'sha256'
      : (await refuses({ wrongMd5: true }))
        ? 'md5'
        : 'none'
    for (let [next] = written; next !== undefined; [next] = written) {
      await requests.remove(next.name, next.versionId)
      written.shift()
    }
    return { conditionalPut, checksum }
  } catch (error) {
    await abandonAll(written, requests)
    throw error
  }
}

/** As far as the store lets us: what keeps it from answering has been told already. */
async function abandonAll(
  written: readonly { readonly name: ObjectName; readonly versionId: string | undefined }[],
  requests: ProbeRequests,
): Promise<void> {
  try {
    for (const { name, versionId } of written) await requests.abandon(name, versionId)
  } catch {
    // The next one would not be answered either.
  }
}
