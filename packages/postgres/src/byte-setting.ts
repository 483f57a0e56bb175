const units: Readonly<Record<string, number>> = { '': 1, B: 1, kB: 1024, MB: 1024 ** 2, GB: 1024 ** 3, TB: 1024 ** 4 }

/** Bytes of a size as SHOW prints it: `16MB`, `8192`, `1GB` (GUC_UNIT_BYTE in src/backend/utils/misc/guc.c). @throws {RangeError} */
export function parseByteSetting(text: string): number {
  const match = /^(\d+)\s*([A-Za-z]*)$/.exec(text.trim())
  const unit = units[match?.[2] ?? '']
  if (!match || unit === undefined) throw new RangeError(`not a size: ${JSON.stringify(text)}`)
  return Number(match[1]) * unit
}
