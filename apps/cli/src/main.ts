/** The `tidemark` command: parses, runs one command, turns any error into a message and an exit code. */
import { CommanderError } from 'commander'
import { keepHeapSmall, problemOf } from '@tidemark/kernel'
import { EXIT, exitCodeOf } from './exit-code.ts'
import { printProblem } from './output.ts'
import { buildProgram } from './program.ts'

keepHeapSmall()
const stop = new AbortController()
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.on(name, () => {
    if (stop.signal.aborted) process.exit(EXIT.interrupted)
    stop.abort()
  })
}
// A reader that went away (`tidemark … | head`) ends the output, not in an error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(EXIT.ok)
  throw error
})

const program = buildProgram(stop.signal)
try {
  await program.parseAsync()
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? EXIT.ok : EXIT.usage
  } else {
    const problem = problemOf(error)
    printProblem(problem, process.argv.includes('--json'))
    if (problem.code === 'INTERNAL' && error instanceof Error) process.stderr.write(`${error.stack}\n`)
    process.exitCode = exitCodeOf(problem)
  }
}
