import { execFileSync } from 'node:child_process'
import { appendFile } from 'node:fs/promises'
import { type Server, createConnection, createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { ServerMismatchError, StandbyRefusedError, openWalStream, preflight, runBaseBackup } from '@tidemark/postgres'
import { TemporaryFolder, type TestPostgres, adoptPostgres, freePort, startPostgres } from '@tidemark/testkit'
import { expect, test } from 'vitest'
import { noDeadline, targetOf } from './server-target.ts'

test('logins behind a balancer that reach different servers are refused, whichever of them it is', async () => {
  await using first = await startPostgres()
  await using other = await startPostgres()
  await using folder = await TemporaryFolder.create('standby')
  await using standby = await standbyOf(first, folder)
  await other.query(`ALTER ROLE postgres PASSWORD '${first.password}'`)
  const { systemId } = await preflight(targetOf(first), { needWal: true }, noDeadline)
  const sink = { onStart() {}, onFile() {}, onFileChunk() {}, onFileEnd() {}, onManifestChunk() {} }

  await using elsewhere = await balance([first, other])
  const target = targetOf(first, { port: elsewhere.port })
  await expect(preflight(target, { needWal: true }, noDeadline)).rejects.toThrow(ServerMismatchError)

  await using behind = await balance([first, standby])
  // A standby has its primary's system id.
  const toStandby = targetOf(first, { port: behind.port })
  await expect(preflight(toStandby, { needWal: true }, noDeadline)).rejects.toThrow(StandbyRefusedError)

  const toOther = targetOf(first, { port: other.port })
  const options = { label: 'x', checkpoint: 'fast', systemId } as const
  await expect(runBaseBackup(toOther, options, sink, noDeadline)).rejects.toThrow(ServerMismatchError)
  await expect(openWalStream(toOther, noDeadline, { systemId })).rejects.toThrow(ServerMismatchError)
  const there = targetOf(first, { port: standby.port })
  await expect(runBaseBackup(there, options, sink, noDeadline)).rejects.toThrow(StandbyRefusedError)
  await expect(openWalStream(there, noDeadline, { systemId })).rejects.toThrow(StandbyRefusedError)
  await (await openWalStream(targetOf(first), noDeadline, { systemId }))[Symbol.asyncDispose]()
})

async function standbyOf(primary: TestPostgres, folder: TemporaryFolder): Promise<TestPostgres> {
  const dataDirectory = await folder.serverFolder('data')
  await primary.run('pg_basebackup', ['-D', dataDirectory, '-R', '-X', 'stream', '-c', 'fast'])
  execFileSync('chown', ['-R', '--reference', primary.dataDirectory, dataDirectory])
  await appendFile(join(dataDirectory, 'postgresql.auto.conf'), `port = ${await freePort()}\n`)
  return await adoptPostgres({ dataDirectory, password: primary.password })
}

/** Leads the first connection to the first server, the second to the second, and so on in turn. */
async function balance(servers: readonly TestPostgres[]): Promise<AsyncDisposable & { readonly port: number }> {
  let next = 0
  const server: Server = createServer((socket) => {
    const { host, port } = servers[next % servers.length] as TestPostgres
    next += 1
    const onward = createConnection(port, host)
    for (const end of [socket, onward]) end.on('error', () => end.destroy())
    socket.pipe(onward).pipe(socket)
  })
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', () => resolve()))
  return {
    port: (server.address() as AddressInfo).port,
    [Symbol.asyncDispose]: () => new Promise((resolve) => void server.close(() => resolve())),
  }
}
