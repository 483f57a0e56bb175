/** The part of pino's interface that packages may use: facts first, then a constant message. */
export interface Logger {
  debug(facts: object, message: string): void
  info(facts: object, message: string): void
  warn(facts: object, message: string): void
  error(facts: object, message: string): void
  child(bindings: Record<string, unknown>): Logger
}

/** For callers with nowhere to log to. */
export const silentLogger: Logger = {
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
  child: () => silentLogger,
}
