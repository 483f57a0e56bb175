/** The text forms of a 256-bit key: 64 hex digits, or base64 (either alphabet) of 32 bytes. */
export const ACCEPTED_KEY_FORMS = '64 hex digits or the base64 of 32 bytes (make one with: openssl rand -hex 32)'

/** The 32 bytes, or undefined when `text` is not a key. Surrounding white space is ignored. */
export function parseKeyText(text: string): Buffer | undefined {
  const trimmed = text.trim()
  if (/^[0-9a-f]{64}$/i.test(trimmed)) return Buffer.from(trimmed, 'hex')
  // 32 bytes are 43 base64 characters and one '='; Buffer.from accepts both alphabets.
  if (!/^(?:[A-Za-z0-9+/]{43}|[A-Za-z0-9_-]{43})=?$/.test(trimmed)) return undefined
  const bytes = Buffer.from(trimmed, 'base64')
  return bytes.length === 32 ? bytes : undefined
}
