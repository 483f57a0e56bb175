/**
 * Vitest `globalSetup`: one S3 server for all test files of a run, started only if one of them asks.
 *
 * The main process makes the folder that the test files agree on and ends the server; its address is
 * handed on by environment, which Vitest passes to the workers it starts afterwards.
 */
import { endGateway } from './s3.ts'
import { S3_STATE } from './shared-s3.ts'
import { TemporaryFolder } from './temporary-folder.ts'

export default async function setup(): Promise<() => Promise<void>> {
  if (process.env[S3_STATE] !== undefined) return async () => {} // another project of the same run has done it
  const folder = await TemporaryFolder.create('shared-s3')
  process.env[S3_STATE] = folder.path
  return async () => {
    delete process.env[S3_STATE]
    await endGateway(folder.path)
    await folder[Symbol.asyncDispose]()
  }
}
