/**
 * Lines of postgresql.conf and postgresql.auto.conf, by the rules of src/backend/utils/misc/guc-file.l.
 *
 * `name = value`, the equals sign optional; a value is a bare word or stands in single quotes, where
 * '' and \' are a quote and backslashes escape as in C (DeescapeQuotedString). Names are matched
 * without regard to case; of two lines for one name the last counts. Lines that are not understood
 * are kept as they are: only the server may judge them.
 */
export interface SettingLine {
  readonly name: string
  readonly value: string
}

/** `NAME`, an optional `=`, a quoted or bare value, an optional comment. */
const line =
  /^[ \t\f\r]*([A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*(?:\.[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*)?)(?:[ \t\f\r]*=[ \t\f\r]*|[ \t\f\r]+)('(?:[^'\\\n]|\\.|'')*'|[^\s#'=]+)[ \t\f\r]*(?:#.*)?$/

export function parseSettingLine(text: string): SettingLine | undefined {
  const match = line.exec(text)
  if (!match?.[1] || match[2] === undefined) return undefined
  const raw = match[2]
  return { name: match[1], value: raw.startsWith("'") ? unquote(raw) : raw }
}

/** The settings that count, last one first seen; keys in lower case. include directives are not followed. */
export function parseServerConfig(text: string): Map<string, string> {
  const settings = new Map<string, string>()
  for (const each of text.split('\n')) {
    const setting = parseSettingLine(each)
    if (setting) settings.set(setting.name.toLowerCase(), setting.value)
  }
  return settings
}

/**
 * A value in quotes, as ALTER SYSTEM writes it (escape_single_quotes_ascii: quotes and backslashes doubled).
 * @throws {RangeError} for a line break or a zero byte, which no configuration line can hold.
 */
export function quoteSetting(value: string): string {
  if (/[\n\r\0]/.test(value)) throw new RangeError('a setting cannot hold a line break or a zero byte')
  return `'${value.replaceAll('\\', '\\\\').replaceAll("'", "''")}'`
}

const escapes: Readonly<Record<string, string>> = { b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' }

function unquote(quoted: string): string {
  return quoted.slice(1, -1).replaceAll(/''|\\([0-7]{1,3}|[\s\S])/g, (_all, escaped: string | undefined) => {
    if (escaped === undefined) return "'"
    if (/^[0-7]/.test(escaped)) return String.fromCharCode(Number.parseInt(escaped, 8) & 0xff)
    return escapes[escaped] ?? escaped
  })
}

/** Drops every line that sets one of `names`; comments and all other lines stay as they are. */
export function removeSettings(text: string, names: Iterable<string>): string {
  const unwanted = new Set([...names].map((name) => name.toLowerCase()))
  return text
    .split('\n')
    .filter((each) => !unwanted.has(parseSettingLine(each)?.name.toLowerCase() ?? ''))
    .join('\n')
}

/** Appends a commented block; of equal names the last line counts, so it outranks everything before it. */
export function appendSettings(text: string, comment: string, settings: Readonly<Record<string, string>>): string {
  const lines = Object.entries(settings).map(([name, value]) => `${name} = ${quoteSetting(value)}`)
  const before = text === '' || text.endsWith('\n') ? text : `${text}\n`
  return `${before}# ${comment.replaceAll(/[\n\r]/g, ' ')}\n${lines.join('\n')}\n`
}

/**
 * What a restore must reset before it writes its own: leftovers would stop replay early or make the
 * server refuse to start ("multiple recovery targets specified").
 */
export const recoverySettings: readonly string[] = [
  'promote_trigger_file',
  'recovery_min_apply_delay',
  'restore_command',
  'archive_cleanup_command',
  'recovery_end_command',
  'recovery_target',
  'recovery_target_action',
  'recovery_target_inclusive',
  'recovery_target_lsn',
  'recovery_target_name',
  'recovery_target_time',
  'recovery_target_timeline',
  'recovery_target_xid',
]
