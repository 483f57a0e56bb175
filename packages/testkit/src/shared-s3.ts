import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { TestS3, startGateway, startS3, type S3Settings } from './s3.ts'
import { until } from './until.ts'

/** Names the folder that the processes of one test run agree on; set by `s3-global-setup`. */
export const S3_STATE = 'TIDEMARK_TESTKIT_S3_STATE'

/**
 * The S3 server of this test run: the first test file that asks for it starts it, the others join.
 *
 * Without the global setup (`@tidemark/testkit/s3-global-setup`) it is the same as `startS3`: one
 * server per call. Buckets are the caller's own either way.
 */
export async function sharedS3(): Promise<TestS3> {
  const state = process.env[S3_STATE]
  const external = process.env['TIDEMARK_TEST_S3_URL']
  if (state === undefined || state === '' || (external !== undefined && external !== '')) return startS3()
  const answer = join(state, 'settings.json')
  const failure = join(state, 'failed')
  const isFirst = await mkdir(join(state, 'starting')).then(
    () => true,
    () => false,
  )
  if (isFirst) {
    try {
      const settings = await startGateway(state)
      await writeFile(`${answer}.new`, JSON.stringify(settings), { mode: 0o600 })
      await rename(`${answer}.new`, answer)
    } catch (error) {
      await writeFile(failure, String(error))
      throw error
    }
  }
  const found = await until(() => readFile(answer, 'utf8').catch(() => readFailure(failure)), {
    timeoutMs: 120_000,
    what: 'the shared S3 server, which another test file starts',
  })
  if (found instanceof Error) throw found
  // Its buckets go with the server, at the end of the run.
  return new TestS3(JSON.parse(found) as S3Settings, { removeBuckets: false })
}

async function readFailure(path: string): Promise<Error | undefined> {
  const text = await readFile(path, 'utf8').catch(() => undefined)
  return text === undefined ? undefined : new Error(`the shared S3 server did not start: ${text}`)
}
