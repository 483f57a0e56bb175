/**
 * /livez, /readyz and /metrics of a worker, on loopback unless told otherwise.
 *
 * Liveness is that the event loop answers. Readiness runs the given checks, each under a deadline: a
 * hung dependency makes the process unready, never the probe hang.
 */
import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { hostNameOf, isLoopback, problemOf } from '@tidemark/kernel'
import type { Metrics } from './metrics.ts'

/** Resolves when the dependency is usable; throws an OperationalError that says what to do. */
export type HealthCheck = (signal: AbortSignal) => Promise<void>

export interface HealthServerOptions {
  /** 0: any free port. */
  readonly port: number
  /** Default 127.0.0.1. */
  readonly host?: string
  readonly checks: Readonly<Record<string, HealthCheck>>
  readonly metrics?: Metrics
  /** Default 2 s for all checks together; they run side by side. */
  readonly checkTimeoutMs?: number
}

export interface HealthServer extends AsyncDisposable {
  readonly host: string
  readonly port: number
  /** From now on /readyz answers 503: the process is shutting down. */
  beginShutdown(): void
}

export interface Readiness {
  readonly ready: boolean
  readonly checks: Readonly<Record<string, { readonly ok: boolean; readonly code?: string; readonly hint?: string }>>
}

export async function startHealthServer(options: HealthServerOptions): Promise<HealthServer> {
  const { host = '127.0.0.1', port, checks, metrics, checkTimeoutMs = 2000 } = options
  let stopping = false

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = (request.url ?? '/').split('?', 1)[0]
    if (request.method !== 'GET' && request.method !== 'HEAD') return send(response, 405, 'method not allowed\n')
    // A page in a browser on this machine may point its own name at loopback (DNS rebinding): its requests carry that name.
    if (isLoopback(host) && !isLoopback(hostNameOf(request.headers.host) ?? ''))
      return send(response, 403, 'the Host header is not a loopback name\n')
    if (path === '/livez') return send(response, 200, 'ok\n')
    if (path === '/readyz') {
      const readiness = stopping
        ? { ready: false, checks: { shutdown: { ok: false } } }
        : await runChecks(checks, checkTimeoutMs)
      return send(response, readiness.ready ? 200 : 503, `${JSON.stringify(readiness)}\n`, 'application/json')
    }
    if (path === '/metrics' && metrics) {
      return send(response, 200, await metrics.registry.metrics(), metrics.registry.contentType)
    }
    return send(response, 404, 'not found\n')
  }

  const server = createServer({ requestTimeout: 10_000 }, (request, response) => {
    answer(request, response).catch(() => {
      if (!response.headersSent) send(response, 500, 'internal error\n')
    })
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, () => {
      server.off('error', reject)
      resolve()
    })
  })
  return {
    host,
    port: (server.address() as AddressInfo).port,
    beginShutdown: () => {
      stopping = true
    },
    [Symbol.asyncDispose]: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

/** Runs all checks side by side. A check that does not settle in time counts as failed. */
export async function runChecks(checks: Readonly<Record<string, HealthCheck>>, timeoutMs: number): Promise<Readiness> {
  const signal = AbortSignal.timeout(timeoutMs)
  const timedOut = new Promise<never>((_resolve, reject) => {
    signal.addEventListener('abort', () => reject(new Error('timed out')), { once: true })
  })
  timedOut.catch(() => {})
  const results = await Promise.all(
    Object.entries(checks).map(async ([name, check]) => {
      try {
        await Promise.race([check(signal), timedOut])
        return [name, { ok: true }] as const
      } catch (error) {
        const timeout = signal.aborted
        const { code, hint } = problemOf(error)
        return [
          name,
          { ok: false, code: timeout ? 'TIMEOUT' : code, hint: timeout ? `no answer within ${timeoutMs} ms` : hint },
        ] as const
      }
    }),
  )
  return { ready: results.every(([, result]) => result.ok), checks: Object.fromEntries(results) }
}

function send(response: ServerResponse, status: number, body: string, type = 'text/plain; charset=utf-8'): void {
  response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' })
  response.end(body)
}
