/**
 * The skeleton that every app process shares.
 *
 * starting → ready: `main` resolved; one JSON line goes to standard output.
 * ready    → draining: SIGTERM, SIGINT, or `fail` from inside. `signal` fires, and what `main` put
 *            on the stack is disposed in reverse order.
 * draining → exit: 0 when the stack is empty; 70 when a disposal failed, the drain deadline passed
 *            or an error was not caught. A second signal exits at once, with 128 + its number.
 *
 * The only place in the packages that ends the process: apps call it from their main.ts, once.
 */
import { constants } from 'node:os'
import { OperationalError, problemOf } from '@tidemark/kernel'
import type { Logger } from '@tidemark/kernel'
import { createLogger } from './logger.ts'

/** EX_SOFTWARE: a bug, or an end that was not clean. */
const EXIT_SOFTWARE = 70
/** EX_CONFIG: an operator has to change something. */
const EXIT_CONFIG = 78

export interface AppContext {
  /** Disposed in reverse order at shutdown. */
  readonly stack: AsyncDisposableStack
  /** Fires when the process is to end. */
  readonly signal: AbortSignal
  readonly logger: Logger
  /** Logs at this level from now on, once the configuration is known. */
  setLogLevel(level: 'debug' | 'info' | 'warn' | 'error' | 'silent'): void
  /** Ends the process in order, with exit code 70: something that must run has stopped. */
  fail(error: unknown): void
}

export interface RunAppOptions {
  /** From the signal to a hard exit; default 30 s. */
  readonly drainDeadlineMs?: number
}

/**
 * Runs `main` until a signal arrives, then drains and exits; never resolves before that.
 *
 * @param main brings everything up and resolves to the facts of the ready line (ports, queues, …).
 */
export async function runApp(
  name: string,
  main: (context: AppContext) => Promise<Readonly<Record<string, unknown>>>,
  options: RunAppOptions = {},
): Promise<void> {
  const { drainDeadlineMs = 30_000 } = options
  const controller = new AbortController()
  const stack = new AsyncDisposableStack()
  let logger = createLogger({ name })
  let exitCode = 0

  function beginShutdown(): void {
    if (controller.signal.aborted) return
    controller.abort()
    setTimeout(() => {
      logger.error({ drainDeadlineMs }, 'the drain deadline passed; exiting with work unfinished')
      process.exit(EXIT_SOFTWARE)
    }, drainDeadlineMs).unref()
  }
  function fail(error: unknown): void {
    logger.error({ err: error }, 'stopping after an error')
    exitCode ||= EXIT_SOFTWARE
    beginShutdown()
  }
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      if (controller.signal.aborted) {
        logger.warn({ signal }, 'second signal; exiting at once')
        process.exit(128 + constants.signals[signal])
      }
      logger.info({ signal, drainDeadlineMs }, 'shutting down')
      beginShutdown()
    })
  }
  process.on('uncaughtException', fail)
  process.on('unhandledRejection', fail)

  const stopped = new Promise<void>((resolve) =>
    controller.signal.addEventListener('abort', () => resolve(), { once: true }),
  )
  // A pending promise alone does not keep a process alive.
  const keepAlive = setInterval(() => {}, 2 ** 30)
  try {
    const setLogLevel: AppContext['setLogLevel'] = (level) => {
      logger = createLogger({ name, level })
    }
    const context: AppContext = {
      stack,
      signal: controller.signal,
      setLogLevel,
      fail,
      get logger() {
        return logger
      },
    }
    const facts = await main(context)
    if (!controller.signal.aborted) {
      process.stdout.write(`${JSON.stringify({ ready: true, app: name, pid: process.pid, ...facts })}\n`)
    }
    await stopped
  } catch (error) {
    if (controller.signal.aborted) {
      logger.info({ err: error }, 'stopped while starting')
    } else {
      logger.error({ err: error }, 'could not start')
      if (error instanceof OperationalError) process.stderr.write(`${error.message}\nHINT: ${problemOf(error).hint}\n`)
      exitCode = error instanceof OperationalError && error.retry !== 'backoff' ? EXIT_CONFIG : EXIT_SOFTWARE
    }
    beginShutdown()
  }
  try {
    await stack.disposeAsync()
  } catch (error) {
    logger.error({ err: error }, 'could not shut down cleanly')
    exitCode ||= EXIT_SOFTWARE
  }
  clearInterval(keepAlive)
  logger.info({ exitCode }, 'stopped')
  process.exit(exitCode)
}
