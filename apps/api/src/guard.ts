/**
 * Stands in for access control until there is one: only programs on this machine may speak here.
 *
 * Listening on loopback keeps other machines out, but not the pages in a browser on this one:
 * - a page may point its own name at 127.0.0.1 (DNS rebinding): its requests carry that name in Host;
 * - a page may send requests across origins: they carry its Origin;
 * - forms and `no-cors` fetches send what JSON APIs do not: a body that is not application/json.
 * Each of the three is refused. The guard answers itself instead of throwing, so that no plugin's
 * error handler can change the answer.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { hostNameOf, isLoopback } from '@tidemark/kernel'
import { sendProblem } from './problems.ts'

/** For the root: holds for every route, also of plugins registered later. */
export async function refuseStrangers(request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply | undefined> {
  const { host, origin } = request.headers
  const name = hostNameOf(host)
  if (name === undefined || !isLoopback(name)) {
    return refuse(
      reply,
      403,
      'HOST_REFUSED',
      'the Host header is not a loopback name',
      'use http://127.0.0.1:<port> or http://localhost:<port>',
    )
  }
  if (origin !== undefined && origin !== `http://${host}`) {
    return refuse(
      reply,
      403,
      'ORIGIN_REFUSED',
      'the request comes from a page of another origin',
      'call the API from a program, or open its own pages',
    )
  }
  return undefined
}

/** For the API's own routes: what changes something must be JSON, also when it has no body. */
export function requireJson(app: FastifyInstance): void {
  app.removeContentTypeParser('text/plain')
  app.addHook('onRequest', async (request, reply) => {
    if (request.method === 'GET' || request.method === 'HEAD') return undefined
    if (/^application\/json(?:\s*;|$)/i.test(request.headers['content-type'] ?? '')) return undefined
    return refuse(
      reply,
      415,
      'CONTENT_TYPE_REFUSED',
      'the body must be JSON',
      'send content-type: application/json, and {} where nothing is to be said',
    )
  })
}

function refuse(reply: FastifyReply, status: number, code: string, message: string, hint: string): FastifyReply {
  return sendProblem(reply, status, { code, message, hint, retry: 'never', facts: {} })
}
