/** The control API as anybody's script would use it: POST, Location, server-sent events. */
import { type Operation, isTerminal, operationSchema } from '@tidemark/contracts'

export async function post(base: string, path: string, body: object): Promise<string> {
  const response = await fetch(base + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  })
  const text = await response.text()
  if (response.status !== 202) throw new Error(`POST ${path} answered ${response.status}: ${text}`)
  return response.headers.get('location') ?? ''
}

/** Follows an operation over its event stream to its end. @throws when it does not succeed. */
export async function follow(
  base: string,
  location: string,
  onSnapshot: (operation: Operation) => void,
): Promise<Operation> {
  const response = await fetch(`${base}${location}/events`, { headers: { accept: 'text/event-stream' } })
  if (!response.ok || response.body === null) throw new Error(`GET ${location}/events answered ${response.status}`)
  let text = ''
  let last: Operation | undefined
  for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
    text += chunk
    const events = text.split('\n\n')
    text = events.pop() ?? ''
    for (const event of events) {
      const data = event
        .split('\n')
        .filter((line) => line.startsWith('data:'))
        .map((line) => line.slice(5).trim())
        .join('\n')
      if (data === '') continue
      last = operationSchema.parse(JSON.parse(data))
      onSnapshot(last)
    }
  }
  if (last === undefined || !isTerminal(last.state)) throw new Error(`the event stream of ${location} ended early`)
  if (last.state !== 'succeeded')
    throw new Error(
      `${last.id} ended as ${last.state}: ${last.error?.code} ${last.error?.message}\n${last.error?.hint}`,
    )
  return last
}
