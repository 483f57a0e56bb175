/** The requests that put an operation on a queue. Each answers 202 and where to follow it. */
import type { FastifyInstance, FastifyReply } from 'fastify'
import type { ZodTypeProvider } from 'fastify-type-provider-zod'
import { hostOf } from '@tidemark/config'
import type { Config } from '@tidemark/config'
import {
  acceptedSchema,
  backupReferenceSchema,
  idempotencyKeySchema,
  startBackupBodySchema,
  startMaintenanceBodySchema,
  startRestoreBodySchema,
  startVerificationBodySchema,
} from '@tidemark/contracts'
import type { Accepted } from '@tidemark/contracts'
import type { EnqueueOptions, Enqueued, OperationQueue } from '@tidemark/queue'
import { z } from 'zod'
import { RequestRefusedError } from '../problems.ts'

export interface RequestRoutesOptions {
  readonly queue: OperationQueue
  readonly config: Pick<Config, 'clusters' | 'repositories'>
}

const headers = z.object({ 'idempotency-key': idempotencyKeySchema.optional() })
const response = { 202: acceptedSchema }
/** Any text: a name that cannot be a cluster's is a cluster that does not exist. */
const clusterParam = z.string()

export function requestRoutes(root: FastifyInstance, { queue, config }: RequestRoutesOptions): void {
  const app = root.withTypeProvider<ZodTypeProvider>()

  function requireCluster(name: string, pointer: string): void {
    if (config.clusters[name]) return
    throw new RequestRefusedError(
      404,
      'UNKNOWN_CLUSTER',
      'no such cluster is configured',
      'see clusters in tidemark.yaml',
      pointer,
    )
  }

  function requireRepository(cluster: string, repository: string | undefined, pointer: string): void {
    const known: readonly string[] = config.clusters[cluster]?.repositories ?? []
    if (repository === undefined || known.includes(repository)) return
    throw new RequestRefusedError(
      422,
      'UNKNOWN_REPOSITORY',
      'this is no repository of the cluster',
      `the cluster's repositories are: ${known.join(', ')}`,
      pointer,
    )
  }

  app.post(
    '/clusters/:name/backups',
    {
      schema: {
        summary: 'Take a base backup',
        params: z.strictObject({ name: clusterParam }),
        headers,
        body: startBackupBodySchema,
        response,
      },
    },
    async (request, reply) => {
      const { name } = request.params
      requireCluster(name, 'path:name')
      request.body.repositories?.forEach((repository, index) =>
        requireRepository(name, repository, `/repositories/${index}`),
      )
      // Always the host of all the cluster's repositories: one queue per cluster keeps "one backup at a time" true.
      const options = enqueueOptions(request.headers['idempotency-key'], hostOf(config, name))
      return accept(reply, await queue.enqueueBackup({ cluster: name, options: request.body }, options))
    },
  )

  app.post(
    '/clusters/:name/backups/:backupId/verifications',
    {
      schema: {
        summary: 'Verify a backup',
        params: z.strictObject({ name: clusterParam, backupId: backupReferenceSchema }),
        headers,
        body: startVerificationBodySchema,
        response,
      },
    },
    async (request, reply) => {
      const { name, backupId } = request.params
      const { repository } = request.body
      requireCluster(name, 'path:name')
      requireRepository(name, repository, '/repository')
      const host = hostOf(config, name, repository === undefined ? undefined : [repository])
      const options = enqueueOptions(request.headers['idempotency-key'], host)
      return accept(reply, await queue.enqueueVerify({ cluster: name, backupId, ...request.body }, options))
    },
  )

  app.post(
    '/restores',
    {
      schema: { summary: 'Restore a backup into an empty directory', headers, body: startRestoreBodySchema, response },
    },
    async (request, reply) => {
      const { cluster, repository, profile, host } = request.body
      if (profile === 'production') {
        throw new RequestRefusedError(
          403,
          'PROFILE_REFUSED',
          'a production restore cannot be asked for over HTTP while the API has no access control',
          'on the target host: tidemark restore --as-production',
          '/profile',
        )
      }
      requireCluster(cluster, '/cluster')
      requireRepository(cluster, repository, '/repository')
      if (host !== undefined && !(await queue.isKnownHost('restore', host))) {
        throw new RequestRefusedError(
          422,
          'UNKNOWN_HOST',
          'no restore worker of that host has ever connected',
          'start worker-restore there, or correct the name',
          '/host',
        )
      }
      const ownHost = hostOf(config, cluster, repository === undefined ? undefined : [repository])
      const options = enqueueOptions(request.headers['idempotency-key'], host ?? ownHost)
      return accept(reply, await queue.enqueueRestore(request.body, options))
    },
  )
}

/** Copies and sweeps; a sweep over repositories of several hosts is asked for one by one. */
export function maintenanceRoutes(root: FastifyInstance, { queue, config }: RequestRoutesOptions): void {
  const app = root.withTypeProvider<ZodTypeProvider>()
  app.post(
    '/maintenance',
    { schema: { summary: 'Copy backups, or sweep repositories', headers, body: startMaintenanceBodySchema, response } },
    async (request, reply) => {
      const { cluster, task } = request.body
      if (cluster !== undefined) requireConfigured(config.clusters, cluster, 'UNKNOWN_CLUSTER', '/cluster')
      const copied = task.verb === 'copy' ? [task.to, ...(task.from === undefined ? [] : [task.from])] : []
      const named = task.verb === 'copy' ? copied : (task.repositories ?? [])
      for (const name of named) requireConfigured(config.repositories, name, 'UNKNOWN_REPOSITORY', '/task')
      // A copy may read from any of the cluster's repositories: whoever owns one of their disks can reach the others.
      const everywhere = task.verb === 'copy' ? hostOf(config, cluster) : undefined
      const host = hostOf(config, cluster, named.length === 0 ? undefined : named) ?? everywhere
      const options = enqueueOptions(request.headers['idempotency-key'], host)
      return accept(reply, await queue.enqueueMaintenance(request.body, options))
    },
  )
}

function requireConfigured(
  known: Readonly<Record<string, unknown>>,
  name: string,
  code: 'UNKNOWN_CLUSTER' | 'UNKNOWN_REPOSITORY',
  pointer: string,
): void {
  if (known[name] !== undefined) return
  const status = code === 'UNKNOWN_CLUSTER' ? 404 : 422
  throw new RequestRefusedError(
    status,
    code,
    'it is not configured',
    `known are: ${Object.keys(known).join(', ')}`,
    pointer,
  )
}

function enqueueOptions(idempotencyKey: string | undefined, host: string | undefined): EnqueueOptions {
  return { ...(idempotencyKey === undefined ? {} : { idempotencyKey }), ...(host === undefined ? {} : { host }) }
}

function accept(reply: FastifyReply, { operationId, created }: Enqueued): Accepted {
  const location = `/v1/operations/${operationId}`
  void reply.code(202).header('location', location)
  return { operationId, created, location }
}
