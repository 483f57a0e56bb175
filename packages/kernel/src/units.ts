export const KiB = 1024
export const MiB = 1024 * KiB
export const GiB = 1024 * MiB

const BYTE_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const

/** `1536` → `1.5 KiB`. For people; machines get the number. */
export function formatBytes(bytes: number): string {
  let value = bytes
  let unit = 0
  while (value >= 1024 && unit < BYTE_UNITS.length - 1) {
    value /= 1024
    unit += 1
  }
  return `${unit === 0 ? value.toFixed(0) : value.toFixed(value < 10 ? 2 : 1)} ${BYTE_UNITS[unit]}`
}

/** `95500` → `1m 35s`, `830` → `0.8s`. */
export function formatDuration(ms: number): string {
  const seconds = Math.round(ms / 100) / 10
  if (seconds < 60) return `${seconds.toFixed(1)}s`
  const whole = Math.round(seconds)
  const parts = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60]
  const [h, m, s] = parts as [number, number, number]
  return h > 0 ? `${h}h ${m}m ${s}s` : `${m}m ${s}s`
}
