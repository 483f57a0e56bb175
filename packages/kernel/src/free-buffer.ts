/** Below this a buffer may be a slice of Node's shared pool, and is left to the collector. */
const POOLED_BELOW = 256 * 1024

/**
 * Gives a large buffer's memory back now. Whoever calls it must be its last user: every view of it becomes empty.
 *
 * zlib and ciphers return each result in a new buffer outside of V8's heap. V8 sees only tiny wrappers and lets tens of megabytes per
 * thread pile up before it looks, which a stated memory ceiling cannot afford.
 */
export function freeBuffer(view: Uint8Array): void {
  const { buffer } = view
  if (buffer instanceof ArrayBuffer && buffer.byteLength >= POOLED_BELOW && !buffer.detached) buffer.transfer(0)
}

/** The bytes as an ArrayBuffer of their own, copied only when they share one. */
export function ownArrayBuffer(bytes: Uint8Array): ArrayBuffer {
  const { buffer, byteOffset, byteLength } = bytes
  if (buffer instanceof ArrayBuffer && byteOffset === 0 && byteLength === buffer.byteLength) return buffer
  return new Uint8Array(bytes).buffer
}
