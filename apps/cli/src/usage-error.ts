import { OperationalError } from '@tidemark/kernel'

/** The words are right, what they say together or within their limits is not: exit code 2, like an unknown option. */
export class UsageError extends OperationalError {
  override readonly code = 'USAGE'
  override readonly retry = 'after-operator'
  constructor(message: string, hint: string) {
    super(message, { hint })
  }
}
