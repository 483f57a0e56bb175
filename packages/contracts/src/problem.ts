/** Errors as they cross process boundaries. */
import { z } from 'zod'

export const retrySchema = z.enum(['never', 'backoff', 'after-operator'])

/** The kernel's Problem: what the queue keeps of an error. */
export const problemSchema = z.strictObject({
  code: z.string().regex(/^[A-Z][A-Z0-9_]*$/),
  message: z.string(),
  hint: z.string(),
  retry: retrySchema,
  facts: z.record(z.string(), z.unknown()),
})
export type Problem = z.infer<typeof problemSchema>

/** RFC 9457, as `application/problem+json`. `type` is stable: clients may compare it. */
export const problemDetailsSchema = z.strictObject({
  /** `https://tidemark.dev/problems/<code in lower case with dashes>`; an identifier, not an address. */
  type: z.string(),
  title: z.string(),
  status: z.int().min(400).max(599),
  detail: z.string(),
  code: z.string(),
  hint: z.string(),
  retry: retrySchema,
  facts: z.record(z.string(), z.unknown()).exactOptional(),
  /** One entry per invalid field; `pointer` is an RFC 6901 pointer into the body, or `?name`, `path:name`. */
  errors: z.array(z.strictObject({ pointer: z.string(), detail: z.string() })).exactOptional(),
})
export type ProblemDetails = z.infer<typeof problemDetailsSchema>

export function problemType(code: string): string {
  return `https://tidemark.dev/problems/${code.toLowerCase().replaceAll('_', '-')}`
}
