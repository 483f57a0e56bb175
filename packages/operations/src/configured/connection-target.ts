import { readFile } from 'node:fs/promises'
import { type Config, ConfigInvalidError } from '@tidemark/config'
import { OperationalError, type Redacted } from '@tidemark/kernel'
import { type ConnectionTarget, StandbyRefusedError, connect } from '@tidemark/postgres'
import { UnknownNameError } from '../errors.ts'

/**
 * The primary among a cluster's nodes.
 *
 * @throws {UnknownNameError} @throws {ConfigInvalidError} its caFile cannot be read. @throws {StandbyRefusedError} every node that answers is a standby; else the first node's error.
 */
export async function findPrimary(config: Config, cluster: string, signal: AbortSignal): Promise<ConnectionTarget> {
  const configured = config.clusters[cluster]
  if (configured === undefined) throw new UnknownNameError('cluster', cluster, Object.keys(config.clusters))
  const ssl = await tlsOf(configured.ssl, configured.caFile, { path: config.path, cluster })
  const { user, database } = configured
  const password: { password?: Redacted<string> } =
    configured.password === undefined ? {} : { password: configured.password }
  const targets = configured.nodes.map(({ host, port }): ConnectionTarget => ({
    host,
    port,
    user,
    database,
    ssl,
    ...password,
    applicationName: `tidemark_${cluster}`,
  }))
  const [only] = targets
  if (only !== undefined && targets.length === 1) return only
  let failure: OperationalError | undefined
  for (const target of targets) {
    try {
      await using connection = await connect(target, signal)
      const [row] = await connection.query<{ standby: boolean }>('SELECT pg_is_in_recovery() AS standby')
      if (row?.standby === false) return target
      failure = new StandbyRefusedError({ host: target.host, port: target.port })
    } catch (error) {
      if (signal.aborted || !(error instanceof OperationalError)) throw error
      failure ??= error
    }
  }
  throw failure ?? new UnknownNameError('cluster', cluster, [])
}

async function tlsOf(
  mode: 'disable' | 'require' | 'verify-full',
  caFile: string | undefined,
  at: { readonly path: string; readonly cluster: string },
): Promise<ConnectionTarget['ssl']> {
  if (mode === 'disable') return false
  const ca = caFile === undefined ? {} : { ca: await readCa(caFile, at) }
  return mode === 'verify-full'
    ? { ...ca, rejectUnauthorized: true }
    : { ...ca, rejectUnauthorized: caFile !== undefined }
}

async function readCa(
  file: string,
  { path, cluster }: { readonly path: string; readonly cluster: string },
): Promise<Buffer> {
  try {
    return await readFile(file)
  } catch (error) {
    const reason = (error as NodeJS.ErrnoException).code ?? 'unknown error'
    const place = `clusters.${cluster}.caFile`
    throw new ConfigInvalidError(path, [{ place, problem: `the file cannot be read (${reason})` }])
  }
}
