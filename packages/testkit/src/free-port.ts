import { randomInt } from 'node:crypto'
import { createServer } from 'node:net'

/**
 * A loopback TCP port that nobody listens on.
 *
 * Taken below Linux's ephemeral range (32768…), so that no outgoing connection can take it between
 * this call and the start of the service.
 */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const port = randomInt(15_000, 32_000)
    if (await canListen(port)) return port
  }
  throw new Error('no free loopback port found in 15000–32000')
}

function canListen(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => server.close(() => resolve(true)))
  })
}
