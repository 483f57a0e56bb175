/** The building blocks of tidemark.yaml. Every message says what is accepted and never repeats the value. */
import { KiB, MiB, GiB } from '@tidemark/kernel'
import { z } from 'zod'

/** An object whose unknown keys are errors that list the known ones. */
export function section<Shape extends z.ZodRawShape>(shape: Shape): z.ZodObject<Shape, z.core.$strict> {
  return z.strictObject(shape, {
    error: (issue) => {
      if (issue.code === 'unrecognized_keys') {
        const unknown = issue.keys.map((key) => JSON.stringify(key)).join(', ')
        return `unknown ${issue.keys.length === 1 ? 'key' : 'keys'} ${unknown}; known here: ${Object.keys(shape).join(', ')}`
      }
      return `a section with: ${Object.keys(shape).join(', ')}`
    },
  })
}

const ENV_NAME = /^[A-Za-z_][A-Za-z0-9_]*$/

/** Where a secret is found. The secret itself never stands in the file. */
export const secretReferenceField = z.union(
  [
    z.strictObject({ env: z.string().regex(ENV_NAME) }),
    z.strictObject({ file: z.string().startsWith('/', { error: 'an absolute path' }) }),
  ],
  {
    error: (issue) =>
      typeof issue.input === 'string' || typeof issue.input === 'number'
        ? 'a secret may not stand in this file: write { env: NAME } or { file: /absolute/path }'
        : '{ env: NAME } or { file: /absolute/path }',
  },
)
export type SecretReference = z.infer<typeof secretReferenceField>

export const hostField = z.string().min(1, { error: 'a host name or address' }).max(253)
export const portField = z
  .int({ error: 'a port, 1 to 65535' })
  .min(1, { error: 'a port, 1 to 65535' })
  .max(65_535, { error: 'a port, 1 to 65535' })
/** 0 lets the system choose, for tests and embedded runs. */
export const listenPortField = z
  .int({ error: 'a port, 0 to 65535 (0: any free one)' })
  .min(0, { error: 'a port, 0 to 65535 (0: any free one)' })
  .max(65_535, { error: 'a port, 0 to 65535 (0: any free one)' })

export function wholeNumber(min: number, max: number): z.ZodInt {
  const error = `a whole number, ${min} to ${max}`
  return z.int({ error }).min(min, { error }).max(max, { error })
}

export const absoluteFileField = z.string().startsWith('/', { error: 'an absolute path' })

const UNITS: Readonly<Record<string, number>> = { B: 1, KiB, MiB, GiB }

/** `16777216` or `16MiB`. */
export function byteSize(min: number, max: number, accepted: string): z.ZodType<number, string | number> {
  return z.union([z.number(), z.string()], { error: accepted }).transform((value, context) => {
    const match = /^(\d+) ?(B|KiB|MiB|GiB)$/.exec(String(value))
    const bytes =
      typeof value === 'number' ? value : match ? Number(match[1]) * (UNITS[match[2] ?? ''] ?? Number.NaN) : Number.NaN
    if (Number.isSafeInteger(bytes) && bytes >= min && bytes <= max) return bytes
    context.addIssue({ code: 'custom', message: accepted })
    return z.NEVER
  })
}
