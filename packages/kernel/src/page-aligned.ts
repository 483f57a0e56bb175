/** What O_DIRECT asks of offsets, lengths and memory on every disk there is today. */
export const PAGE_BYTES = 4096

/**
 * Zeroed memory that begins at a page's start, as O_DIRECT wants it, and lies outside of malloc's heaps.
 *
 * V8 takes the memory of a resizable buffer from its page allocator. Nothing promises that: where it ceases to be so, a direct read or
 * write fails with EINVAL, and its caller must go the ordinary way.
 */
export function pageAligned(bytes: number): Uint8Array<ArrayBuffer> {
  const maxByteLength = Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES
  // With a length of its own the view does not follow the buffer's, and costs what any other does.
  return new Uint8Array(new ArrayBuffer(maxByteLength, { maxByteLength }), 0, maxByteLength)
}

/** Whether a view is of memory that `pageAligned` made, and begins at a page's start. */
export function isPageAligned({ buffer, byteOffset }: Uint8Array): boolean {
  return buffer instanceof ArrayBuffer && buffer.resizable && byteOffset % PAGE_BYTES === 0
}

const IMPOSSIBLE = new Set(['EINVAL', 'ENOTSUP', 'EOPNOTSUPP'])

/** Whether an error of a direct read or write says that it cannot be done here at all, or not with this memory. */
export function isNoDirectAccess(error: unknown): boolean {
  return IMPOSSIBLE.has((error as NodeJS.ErrnoException).code ?? '')
}
