/** What commit records name as their writer. */
export const WRITER_VERSION = '0.1.0'
