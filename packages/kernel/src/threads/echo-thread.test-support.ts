/** A thread for the tests of ThreadPool: it answers, fails in several ways, or ends. */
import { threadId } from 'node:worker_threads'
import { AbortedError } from '../errors.ts'
import { type PrepareThread, serveThread } from './serve-thread.ts'

export type EchoRequest =
  | { readonly type: 'echo'; readonly bytes: ArrayBuffer }
  | { readonly type: 'operational' | 'bug' | 'end' | 'who' | 'unclonable' }

const prepare: PrepareThread<{ greeting: string }, EchoRequest, unknown> =
  ({ greeting }) =>
  (request) => {
    switch (request.type) {
      case 'echo':
        return { reply: { greeting, bytes: request.bytes }, transfer: [request.bytes] }
      case 'operational':
        throw new AbortedError('the echo')
      case 'bug':
        throw new TypeError('echo is not a function')
      case 'end':
        process.exit(3)
      // eslint-disable-next-line no-fallthrough
      case 'who':
        return { reply: threadId }
      case 'unclonable':
        return { reply: () => {} }
      default:
        return request satisfies never
    }
  }

serveThread('echo-thread.test-support', prepare)
