import { hash } from 'node:crypto'

/** The SDK's BuildMiddleware, as far as it is needed here. */
type BuildStep = <Args extends { request: unknown }, Out>(
  next: (args: Args) => Promise<Out>,
) => (args: Args) => Promise<Out>

interface HttpRequestLike {
  headers: Record<string, string>
  body?: unknown
}

/**
 * Sets headers before the request is signed, so that they are part of the signature.
 *
 * `x-amz-content-sha256` given this way is what the signer uses: the SDK does not hash the body again,
 * and the store refuses other bytes than those (RGW checks it; a CRC32 header it does not check).
 */
export function withHeaders(headers: Readonly<Record<string, string>>): BuildStep {
  return (next) => async (args) => {
    Object.assign((args.request as HttpRequestLike).headers, headers)
    return next(args)
  }
}

/** The SDK's DeserializeMiddleware, as far as it is needed here. */
type DeserializeStep = <Args, Out extends { response: unknown }>(
  next: (args: Args) => Promise<Out>,
) => (args: Args) => Promise<Out>

/** Hands the response's headers, in lower case, to `take`; the SDK's own answer leaves most of them out. */
export function withResponseHeaders(take: (headers: Readonly<Record<string, string>>) => void): DeserializeStep {
  return (next) => async (args) => {
    const result = await next(args)
    take((result.response as HttpRequestLike).headers)
    return result
  }
}

/** DeleteObjects: many stores still demand Content-MD5, which the SDK no longer sends. */
export function withBodyMd5(): BuildStep {
  return (next) => async (args) => {
    const request = args.request as HttpRequestLike
    if (typeof request.body === 'string' || request.body instanceof Uint8Array) {
      request.headers['content-md5'] = hash('md5', request.body, 'base64')
    }
    return next(args)
  }
}
