import type { FastifyInstance } from 'fastify'
import { runChecks } from '@tidemark/observability'

const CHECK_TIMEOUT_MS = 2000

/** Readiness is Redis alone: neither object stores nor source databases are the API's to judge. */
export function healthRoutes(app: FastifyInstance, checkReady: () => Promise<void>): void {
  app.get('/livez', { schema: { hide: true } }, async (_request, reply) => reply.type('text/plain').send('ok\n'))
  app.get('/readyz', { schema: { hide: true } }, async (_request, reply) => {
    const readiness = await runChecks({ redis: checkReady }, CHECK_TIMEOUT_MS)
    return reply.code(readiness.ready ? 200 : 503).send(readiness)
  })
}
