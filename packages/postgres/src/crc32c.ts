/** CRC-32C (Castagnoli), which PostgreSQL uses for pg_control and WAL (src/port/pg_crc32c_sb8.c). zlib.crc32 is another polynomial. */
export function crc32c(bytes: Buffer): number {
  let crc = 0xffff_ffff
  for (const byte of bytes) crc = (crc >>> 8) ^ (table[(crc ^ byte) & 0xff] ?? 0)
  return (crc ^ 0xffff_ffff) >>> 0
}

const table = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0x82f6_3b78 : value >>> 1
  return value
})
