/**
 * Every refusal as RFC 9457 `application/problem+json`: the one place where error codes meet HTTP
 * status codes. Messages of unknown errors stay in the log; the client sees only that there was one.
 */
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { hasZodFastifySchemaValidationErrors } from 'fastify-type-provider-zod'
import { problemType } from '@tidemark/contracts'
import type { ProblemDetails } from '@tidemark/contracts'
import { OperationalError, problemOf } from '@tidemark/kernel'
import type { Logger, Problem, Retry } from '@tidemark/kernel'

/** A request that this API refuses before it reaches the queue. */
export class RequestRefusedError extends OperationalError {
  override readonly code: string
  override readonly retry: Retry = 'never'
  readonly status: number
  readonly pointer: string | undefined

  constructor(status: number, code: string, message: string, hint: string, pointer?: string) {
    super(message, { hint })
    this.status = status
    this.code = code
    this.pointer = pointer
  }
}

const STATUS_OF_CODE: Readonly<Record<string, number>> = {
  QUEUE_UNAVAILABLE: 503,
  REDIS_UNSUITABLE: 503,
  OPERATION_CONFLICT: 409,
  IDEMPOTENCY_KEY_REUSED: 422,
}

/** Fastify's own refusals, in our words. */
const FASTIFY_REFUSALS: Readonly<Record<string, { code: string; hint: string }>> = {
  FST_ERR_CTP_INVALID_MEDIA_TYPE: {
    code: 'CONTENT_TYPE_REFUSED',
    hint: 'send JSON with content-type: application/json',
  },
  FST_ERR_CTP_EMPTY_JSON_BODY: { code: 'BODY_MISSING', hint: 'send a JSON object; {} where nothing is to be said' },
  FST_ERR_CTP_INVALID_JSON_BODY: { code: 'BODY_MALFORMED', hint: 'send one valid JSON object' },
  FST_ERR_CTP_BODY_TOO_LARGE: { code: 'BODY_TOO_LARGE', hint: 'no request of this API needs more than 16 KiB' },
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: { code: 'BODY_MALFORMED', hint: 'content-length must be the length of the body' },
  FST_ERR_BAD_URL: { code: 'URL_MALFORMED', hint: 'encode the path as RFC 3986 asks' },
}

type Extra = Pick<ProblemDetails, 'errors'>

export function sendProblem(reply: FastifyReply, status: number, problem: Problem, extra: Extra = {}): FastifyReply {
  const details: ProblemDetails = {
    type: problemType(problem.code),
    title: problem.code.toLowerCase().replaceAll('_', ' '),
    status,
    detail: problem.message,
    code: problem.code,
    hint: problem.hint,
    retry: problem.retry,
    ...(Object.keys(problem.facts).length > 0 ? { facts: problem.facts } : {}),
    ...extra,
  }
  if (status === 503) void reply.header('retry-after', '5')
  // A string, so that no route's response schema is applied to it.
  return reply
    .code(status)
    .header('content-type', 'application/problem+json')
    .serializer(String)
    .send(JSON.stringify(details))
}

export function handleErrors(app: FastifyInstance, logger: Logger): void {
  app.setErrorHandler((error, request, reply) => answerError(error, request, reply, logger))
  app.setNotFoundHandler((request, reply) =>
    sendProblem(reply, 404, {
      code: 'NOT_FOUND',
      message: `there is no ${request.method} ${request.url.split('?', 1)[0]}`,
      hint: 'GET /v1/openapi.json lists every address',
      retry: 'never',
      facts: {},
    }),
  )
}

export function answerError(
  error: unknown,
  request: FastifyRequest,
  reply: FastifyReply,
  logger: Logger,
): FastifyReply {
  if (hasZodFastifySchemaValidationErrors(error)) {
    const problem: Problem = {
      code: 'REQUEST_INVALID',
      message: 'the request does not have the accepted form',
      hint: 'see errors for each place and what is accepted there',
      retry: 'never',
      facts: {},
    }
    return sendProblem(reply, 400, problem, { errors: fieldErrors(error) })
  }
  if (error instanceof RequestRefusedError) {
    const { status, pointer, message } = error
    return sendProblem(
      reply,
      status,
      problemOf(error),
      pointer === undefined ? {} : { errors: [{ pointer, detail: message }] },
    )
  }
  const { code = '', statusCode = 500 } = error as Partial<FastifyError>
  const refusal = FASTIFY_REFUSALS[code]
  if (refusal) {
    const message = error instanceof Error ? error.message : code
    return sendProblem(reply, statusCode, { ...refusal, message, retry: 'never', facts: {} })
  }
  const status = error instanceof OperationalError ? (STATUS_OF_CODE[error.code] ?? 500) : 500
  const { method, url, id } = request
  if (status >= 500) logger.error({ err: error, requestId: id, method, url }, 'request failed')
  if (error instanceof OperationalError) return sendProblem(reply, status, problemOf(error))
  return sendProblem(reply, 500, {
    code: 'INTERNAL',
    message: 'the request failed for an internal reason',
    hint: `look in the log of the API for requestId ${id}`,
    retry: 'never',
    facts: { requestId: id },
  })
}

interface ZodRefusal {
  readonly validation: readonly {
    readonly instancePath: string
    readonly message?: string
    readonly params?: unknown
  }[]
  readonly validationContext?: string
}

function fieldErrors(error: unknown): { pointer: string; detail: string }[] {
  const { validation, validationContext } = error as ZodRefusal
  return validation.flatMap(({ instancePath, message = 'not accepted', params }) => {
    // Unknown keys are reported on their parent: point at each of them instead.
    const { keys } = (params ?? {}) as { keys?: readonly string[] }
    // The whole body is '' in RFC 6901; the validator says '/'.
    const parent = instancePath === '/' ? '' : instancePath
    const paths = keys ? keys.map((key) => `${parent}/${key.replaceAll('~', '~0').replaceAll('/', '~1')}`) : [parent]
    return paths.map((path) => ({
      pointer: pointerIn(validationContext, path),
      detail: keys ? 'unknown key' : message,
    }))
  })
}

function pointerIn(context: string | undefined, path: string): string {
  const name = path.slice(1)
  if (context === 'params') return `path:${name}`
  if (context === 'querystring') return `?${name}`
  if (context === 'headers') return `header:${name}`
  return path
}
