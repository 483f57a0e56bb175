/** Ids of what a record's headers announce, above those of block references (src/include/access/xlogrecord.h). */
const DATA_SHORT = 255
const DATA_LONG = 254
const ORIGIN = 253
const TOPLEVEL_XID = 252
const MAX_BLOCK_ID = 32
const HAS_IMAGE = 0x10
const SAME_RELATION = 0x80
const IMAGE_HAS_HOLE = 0x1
const IMAGE_COMPRESSED = 0x4 | 0x8 | 0x10

/**
 * The main data of a record: what its resource manager wrote. It is the last thing in a record; its length is in the last of the headers
 * that the record begins with, and the others are stepped over (DecodeXLogRecord, xlogreader.c).
 *
 * @param body a record after its fixed header. @returns undefined where its headers make no sense, although its CRC holds.
 */
export function mainDataOf(body: Buffer): Buffer | undefined {
  let at = 0
  let announced = 0
  try {
    while (body.length - at > announced) {
      const id = body.readUInt8(at)
      if (id === DATA_SHORT || id === DATA_LONG) {
        const length = id === DATA_SHORT ? body.readUInt8(at + 1) : body.readUInt32LE(at + 1)
        at += id === DATA_SHORT ? 2 : 5
        return at + announced + length === body.length ? body.subarray(body.length - length) : undefined
      }
      if (id === ORIGIN) at += 3
      else if (id === TOPLEVEL_XID) at += 5
      else if (id <= MAX_BLOCK_ID) {
        const flags = body.readUInt8(at + 1)
        announced += body.readUInt16LE(at + 2)
        at += 4
        if (flags & HAS_IMAGE) {
          announced += body.readUInt16LE(at)
          const image = body.readUInt8(at + 4)
          at += image & IMAGE_HAS_HOLE && image & IMAGE_COMPRESSED ? 7 : 5
        }
        // Tablespace, database and relation, then the block's number.
        at += flags & SAME_RELATION ? 4 : 16
      } else return undefined
    }
    return at + announced === body.length ? Buffer.alloc(0) : undefined
  } catch (error) {
    if (error instanceof RangeError) return undefined
    throw error
  }
}
