import { InvalidObjectNameError } from './errors.ts'
import type { ObjectName } from './object-store.ts'

const PART = /^[A-Za-z0-9._=-]+$/
/** S3 allows 1,024 bytes for prefix and name together; a file name has 255. */
const MAX_NAME = 700
const MAX_PART = 255
/** The file driver's folder for what is not complete yet; refused everywhere, so that any repository can be copied. */
export const SCRATCH_PART = '.tmp'

/** @throws {InvalidObjectNameError} */
export function checkObjectName(name: ObjectName): void {
  const reason = faultOf(name)
  if (reason !== undefined) throw new InvalidObjectNameError(name, reason)
}

/** Whether `name` could have been written through this port; foreign files and keys are passed over in listings. */
export function isObjectName(name: string): boolean {
  return faultOf(name) === undefined
}

/** A listing's prefix: the beginning of some valid name, or ''. @throws {InvalidObjectNameError} */
export function checkPrefix(prefix: string): void {
  if (prefix !== '') checkObjectName(prefix.endsWith('/') ? prefix.slice(0, -1) : prefix)
}

/** The prefix of `listFolders`. @throws {InvalidObjectNameError} */
export function checkFolder(prefix: string): void {
  checkPrefix(prefix)
  if (prefix !== '' && !prefix.endsWith('/')) throw new InvalidObjectNameError(prefix, "a folder ends in '/'")
}

function faultOf(name: string): string | undefined {
  if (name.length === 0) return 'it is empty'
  if (name.length > MAX_NAME) return `it is longer than ${MAX_NAME} characters`
  if (name.startsWith('/')) return "it starts with '/'"
  const parts = name.split('/')
  for (const part of parts) {
    if (part === '') return "it has an empty part ('//', or '/' at its end)"
    if (part === '.' || part === '..') return `it has a part '${part}'`
    if (part.length > MAX_PART) return `a part is longer than ${MAX_PART} characters`
    if (!PART.test(part)) return 'it has characters outside [A-Za-z0-9._=-]'
  }
  return parts[0] === SCRATCH_PART ? `'${SCRATCH_PART}' is reserved` : undefined
}
