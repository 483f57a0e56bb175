/** The numbers of docs/repository-format.md, section 3. */
export const MAX_FRAMES = 4096
export const TABLE_ENTRY_BYTES = 24
export const TRAILER_BYTES = 8
